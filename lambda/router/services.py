"""The router's three calls to AWS: Bedrock's Converse, DynamoDB's GetItem and S3's GetObject.

Parameters, responses and errors are those of boto3's clients, except that an object is returned as its bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import botocore
from botocore.exceptions import ClientError

from router.connections import MOST_BYTES, Answer, Connections, tls_context
from router.signature import Signer, keys

# AWS's own certificate authorities are among those that botocore ships.
_AUTHORITIES = Path(botocore.__file__).parent / "cacert.pem"

# Of an object in S3: a classification head has 1 MiB at most.
MOST_OBJECT_BYTES = 2**20 + 4096
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Service:
    """One service at its endpoint. `seconds` is for a whole call, from the connection to the last byte."""

    connections: Connections
    signer: Signer
    seconds: float

    @classmethod
    def of(
        cls,
        name: str,
        signing_name: str,
        environment: Mapping[str, str],
        *,
        seconds: float,
        most_idle: int,
        most_bytes: int = MOST_BYTES,
        prefix: str = "",
    ) -> Self:
        """Return a service by the name in its endpoint, with the variables that Lambda sets.

        `prefix` stands before AWS's own host name.
        AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL and AWS_CA_BUNDLE mean what they mean to any SDK.
        """
        region = environment["AWS_REGION"]
        domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        own = f"AWS_ENDPOINT_URL_{name.upper().replace('-', '_')}"
        url = (
            environment.get(own)
            or environment.get("AWS_ENDPOINT_URL")
            or f"https://{prefix}{name}.{region}.{domain}"
        )
        ca_bundle = environment.get("AWS_CA_BUNDLE") or str(_AUTHORITIES)
        connections = Connections(
            url.rstrip("/"), lambda: _context(ca_bundle), most_idle=most_idle, most_bytes=most_bytes
        )
        return cls(connections, Signer(keys(environment), region, signing_name), seconds)

    def within(self, seconds: float) -> Self:
        """Return the same service for a call that takes so many seconds at most."""
        return replace(self, seconds=seconds)

    def _call(self, operation: str, path: str, request: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        """Return the JSON object that the service answers.

        Raises:
            ClientError: The service answered with an error, or something else answered in its place.
            BotoCoreError: There was no response.
        """
        body = json.dumps(request, separators=(",", ":")).encode()
        answer = self._send("POST", path, headers, body)
        content = _object(answer.body)
        if answer.status != 200:
            raise _error(answer, content or {}, operation)
        if content is None:
            # An empty object would be a table without the item.
            foreign = Answer(502, {"x-amzn-errortype": "BadGateway"}, b"")
            raise _error(foreign, {"message": f"The response is not {operation}'s."}, operation)
        return content

    def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        signed = self.signer.signed(method, path, {**headers, "host": self.connections.host}, body)
        # Not signed, because a proxy may change it. CloudTrail shows it.
        signed["user-agent"] = "distilled-router"
        return self.connections.request(method, path, signed, body, self.seconds)


class BedrockRuntime(Service):
    """Bedrock's runtime."""

    def converse(self, *, modelId: str, **request: Any) -> dict[str, Any]:  # noqa: N803  # as in boto3
        """Ask a model."""
        path = f"/model/{quote(modelId, safe='')}/converse"
        return dict(self._call("Converse", path, request, {"content-type": "application/json"}))


class DynamoDb(Service):
    """DynamoDB."""

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Read an item."""
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.GetItem"}
        return dict(self._call("GetItem", "/", request, headers))


class S3(Service):
    """S3: AWS's host of one bucket, or the endpoint that is set, which gets the bucket in the path."""

    @classmethod
    def of_bucket(cls, bucket: str, environment: Mapping[str, str], *, seconds: float) -> Self:
        """Return S3 for reading a bucket's objects, each over a connection of its own.

        AWS's certificate is for one label before `s3`, so a bucket's name with dots goes into the path.
        """
        return cls.of(
            *("s3", "s3", environment),
            seconds=seconds,
            most_idle=0,
            most_bytes=MOST_OBJECT_BYTES,
            prefix="" if "." in bucket else f"{bucket}.",
        )

    def read_object(self, *, Bucket: str, Key: str) -> bytes:  # noqa: N803  # as in boto3
        """Return an object of `MOST_OBJECT_BYTES` at most.

        Raises:
            ClientError: S3 answered with an error or a redirect, which is not followed.
            BotoCoreError: There was no whole response, or it is too long.
        """
        in_host = self.connections.host.startswith(f"{Bucket}.s3.")
        path = quote(f"/{Key}" if in_host else f"/{Bucket}/{Key}", safe="/~")
        answer = self._send("GET", path, {"x-amz-content-sha256": _NO_BODY}, b"")
        if answer.status != 200:
            raise _error(answer, _xml(answer.body), "GetObject")
        return answer.body


@cache
def _context(ca_bundle: str) -> Any:
    return tls_context(ca_bundle)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _xml(body: bytes) -> dict[str, str]:
    """Return the code and message of S3's error."""
    text = body[:4096].decode("utf-8", "replace")
    return dict(re.findall(r"<(Code|Message)>([^<]*)</", text))


def _error(answer: Answer, content: Mapping[str, Any], operation: str) -> ClientError:
    """Return the error in a response: its code is in a header or in the body, its text in the body."""
    named = answer.headers.get("x-amzn-errortype")
    named = named or content.get("__type") or content.get("code") or content.get("Code")
    # Both "ValidationException:http://internal.amazon.com/" and "com.amazonaws.dynamodb.v20120810#..." occur.
    code = str(named or answer.status).partition(":")[0].rpartition("#")[2]
    text = content.get("message") or content.get("Message") or ""
    return ClientError(
        {
            "Error": {"Code": code, "Message": str(text)},
            "ResponseMetadata": {"HTTPStatusCode": answer.status},  # type: ignore[typeddict-item]  # all that is read
        },
        operation,
    )
