"""Sign requests with AWS Signature Version 4 (IAM user guide, "create a signed AWS API request").

botocore's signer gives the same headers, which a test compares. Decision 28 says why it is not used.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of the function's role, which stay valid for the life of the execution environment."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables that Lambda sets.

        Raises:
            ValueError: A variable is missing.
        """
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if missing := [name for name in names if not environment.get(name)]:
            problem = f"{' and '.join(missing)} must be set: the router's keys come from Lambda's variables"
            raise ValueError(f"{problem}, which a function with SnapStart does not have.")
        access_key, secret_key = (environment[name] for name in names)
        return cls(access_key, secret_key, environment.get("AWS_SESSION_TOKEN", ""))


class Signer:
    """Signs POST requests to one service."""

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        service: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Sign for a service by its signing name, e.g. `bedrock`. `now` returns the wall clock in seconds."""
        self._credentials = credentials
        self._region, self._service = region, service
        self._now = now
        self._key = ("", b"")

    def signed(self, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        """Return the headers with those of the signature.

        Args:
            path: the path, percent-encoded as it is sent.
            headers: in lower case, with `host`; all are signed.
            body: the request's body.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        signed = {**headers, "x-amz-date": moment}
        if self._credentials.token:
            signed["x-amz-security-token"] = self._credentials.token
        names = sorted(signed)
        request = "\n".join(
            (
                "POST",
                # Services other than S3 encode a path twice.
                quote(path, safe="/~"),
                "",
                *(f"{name}:{signed[name]}" for name in names),
                "",
                ";".join(names),
                hashlib.sha256(body).hexdigest(),
            )
        )
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        text = f"{ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(moment[:8]), text.encode(), "sha256").hex()
        signed["authorization"] = (
            f"{ALGORITHM} Credential={self._credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return signed

    def _signing_key(self, day: str) -> bytes:
        """Return the day's key; it is the same for all requests of a day."""
        known, key = self._key
        if known != day:
            key = f"AWS4{self._credentials.secret_key}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (day, key)
        return key
