"""Sign requests with AWS Signature Version 4 (IAM user guide, "create a signed AWS API request").

botocore's signer gives the same headers, which a test compares. Decision 28 says why it is not used.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of the function's role."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


type Keys = Callable[[], Credentials]
"""Returns the keys that are valid now."""


def keys(environment: Mapping[str, str]) -> Keys:
    """Return the keys in Lambda's variables, which stay valid for the life of an execution environment.

    A function with SnapStart has an endpoint instead, whose keys expire; botocore reads and renews those
    (Lambda developer guide, "SnapStart best practices").

    Raises:
        ValueError: There are no keys.
    """
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        fixed = Credentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN", ""))
        return lambda: fixed
    # Imported here: it takes as long as the rest of a start.
    from botocore.session import get_session

    found = get_session().get_credentials()
    if found is None:
        raise ValueError(
            "Found neither AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY nor "
            "AWS_CONTAINER_CREDENTIALS_FULL_URI; Lambda sets one of them."
        )

    def current() -> Credentials:
        frozen = found.get_frozen_credentials()
        return Credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token or "")

    return current


class Signer:
    """Signs requests to one service."""

    def __init__(
        self,
        keys: Keys,
        region: str,
        service: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Sign for a service by its signing name, e.g. `bedrock`. `now` returns the wall clock in seconds."""
        self._keys = keys
        self._region, self._service = region, service
        self._now = now
        self._signing_key: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def signed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return the headers with those of the signature.

        Args:
            method: of the request, e.g. `POST`.
            path: the path, percent-encoded as it is sent.
            headers: in lower case, with `host`; all are signed.
            body: the request's body.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        keys = self._keys()
        signed = {**headers, "x-amz-date": moment}
        if keys.token:
            signed["x-amz-security-token"] = keys.token
        names = sorted(signed)
        request = "\n".join(
            (
                method,
                # Services other than S3 encode a path twice.
                path if self._service == "s3" else quote(path, safe="/~"),
                "",
                *(f"{name}:{signed[name]}" for name in names),
                "",
                ";".join(names),
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._derived(keys, moment[:8]), text.encode(), "sha256").hex()
        signed["authorization"] = (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return signed

    def _derived(self, keys: Credentials, day: str) -> bytes:
        """Return the key that signs; it is the same for all requests of a day."""
        of = (keys.secret_key, day)
        known, key = self._signing_key
        if known != of:
            key = f"AWS4{keys.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._signing_key = (of, key)
        return key
