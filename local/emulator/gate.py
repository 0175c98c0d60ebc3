"""Admit requests with the keys of this start, and refuse all others.

MiniStack takes `test`, any account id and an unsigned request for the account's root user, does not check
root's signatures, and serves its own paths to everyone. A root user can run code, as the developer. So:

- A request with the token of this start in a header is admitted. MiniStack's own paths, and those of `serve`,
  need it. Only the health check is open: it reveals the version and the services.
- The URLs to which a function sends CloudFormation's answers are secrets themselves, like the pre-signed URLs
  that they stand for.
- Everything else must be signed, with the root key of this start or with credentials that the emulator gave
  out; MiniStack decides what they allow. A web identity is no exception: AWS verifies its own signature,
  MiniStack does not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote

from ministack import app as ministack
from ministack.core import iam_evaluator, responses, router, sigv4
from ministack.core.iam_evaluator import AuthError

HEADER = b"x-local-token"
HEALTH = "/_ministack/health"
ANSWERS = ("/_ministack/cfn-response/", "/_ministack/cfn-signal/")
# API Gateway's and Lambda's URLs on AWS are hosts of their own.
SIGNED = "/_aws/"
ALGORITHM = "AWS4-HMAC-SHA256 "

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Gate:
    """Checks every request before MiniStack sees it."""

    def __init__(self, root: str, token: str) -> None:
        """Admit the root user with the access key `root`, and requests with the token.

        Raises:
            ValueError: One of them is empty: everybody would be admitted.
        """
        if not root or not token:
            raise ValueError("AWS_ACCESS_KEY_ID and LOCAL_TOKEN must be set for the emulator.")
        self._root, self._token = root, token.encode()

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Return a function that receives an admitted request; refuse any other one and return None."""
        path = str(scope["path"])
        if self._has_token(scope) or self._is_open(scope["method"], path):
            return receive
        if path.startswith("/_") and not path.startswith(SIGNED):
            await answer(send, 403, {"message": f"{path} needs the token in the header {HEADER.decode()}."})
            return None
        request = Signed(scope)
        failed = request.identify(self._root)
        # An unknown caller's body is not kept, since it may be of any size.
        body = await read(receive, keep=failed is None)
        if body is None:
            return None
        if failed := failed or request.verify(body):
            await _refuse(send, request, failed)
            return None
        return _again(body, receive)

    def _is_open(self, method: str, path: str) -> bool:
        return (method, path) == ("GET", HEALTH) or (method == "PUT" and path.startswith(ANSWERS))

    def _has_token(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name.lower() == HEADER), b"")
        return hmac.compare_digest(given, self._token)


class Signed:
    """A request and its signature."""

    def __init__(self, scope: Scope) -> None:
        self.method, self.path = str(scope["method"]), str(scope["path"])
        self.query = parse_qs(scope.get("query_string", b"").decode(errors="replace"), keep_blank_values=True)
        self.headers: dict[str, str] = {}
        for raw, value in scope["headers"]:
            name, text = raw.decode("latin-1").lower(), sigv4.decode_header_value(value)
            # Signed as one header, with a comma.
            self.headers[name] = f"{self.headers[name]},{text}" if name in self.headers else text
        self._raw_path = (scope.get("raw_path") or quote(self.path).encode()).decode("latin-1")
        self._by_query = "X-Amz-Signature" in self.query
        self._signature: Any = None
        self._credential: Any = None

    def identify(self, root: str) -> Any:
        """Return an error unless the request names this start's root or credentials of the emulator."""
        by_query = self._by_query
        if self.headers.get("authorization", "").startswith(ALGORITHM) == by_query:
            return AuthError("MissingAuthenticationToken", "Missing Authentication Token")
        read_signature = sigv4.parse_query_signature if by_query else sigv4.parse_header_signature
        signature = read_signature(self.query if by_query else self.headers)
        if isinstance(signature, tuple):
            return AuthError(*signature)
        # The one that MiniStack will find: a header may name several.
        key = router.extract_access_key_id(self.headers, self.query)
        if key != signature.access_key_id or (iam_evaluator.is_root_access_key(key) and key != root):
            return _unknown()
        if late := self._lateness(signature, by_query=by_query):
            return AuthError(*late)
        token = self.query.get("X-Amz-Security-Token", [""])[0]
        credential = _credential(key, token if by_query else self.headers.get("x-amz-security-token", ""))
        if isinstance(credential, iam_evaluator.CredentialResolutionError):
            return AuthError(credential.code, credential.message)
        self._signature, self._credential = signature, credential
        return None

    def verify(self, body: bytes) -> Any:
        """Return an error unless the caller that `identify` found has signed this request and body."""
        hashed = self.headers.get("x-amz-content-sha256", "")
        if len(hashed) == 64 and hashed != hashlib.sha256(body).hexdigest():
            return AuthError("SignatureDoesNotMatch", "The body does not have the signed hash.")
        wrong = sigv4.header_signature_failure(
            self._signature,
            self._credential.secret_access_key,
            self.method,
            self._raw_path,
            self.query,
            self.headers,
            body,
            presigned=self._by_query,
        )
        return AuthError(*wrong) if wrong else None

    def _lateness(self, signature: Any, *, by_query: bool) -> tuple[str, str] | None:
        expires = self.query.get("X-Amz-Expires", [""])[0]
        if not by_query or not expires:
            found: tuple[str, str] | None = sigv4.request_time_failure(signature)
            return found
        try:
            expired = sigv4.presigned_request_is_expired(signature.amz_date, expires)
        except ValueError:
            expired = True
        return ("AccessDenied", "Request has expired") if expired else None


def _credential(key: str, token: str) -> Any:
    """Return the credential of an access key, or why there is none."""
    account = responses._account_from_sts_session(key) or iam_evaluator.find_iam_access_key_account(key)
    return iam_evaluator.resolve_credential(key, account, token)


def _unknown() -> Any:
    unknown = iam_evaluator._unknown_access_key()
    return AuthError(unknown.code, unknown.message)


async def read(receive: Receive, *, keep: bool = True) -> bytes | None:
    """Return the body of a request, empty unless `keep`; None if the client has gone."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if keep:
            parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a function that receives a body that was read."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Mapping[str, Any]:
        return left.pop() if left else await receive()

    return replay


async def _refuse(send: Send, request: Signed, failed: Any) -> None:
    """Send the error in the form of the service that is called."""
    if request.path.startswith(SIGNED):
        await answer(send, 403, {"message": "Forbidden"})
        return
    service = router.detect_service(request.method, request.path, request.headers, request.query)
    status, headers, body = ministack._credential_failure(
        service, "", str(uuid.uuid4()), failed, request.headers
    )
    await ministack._send_response(send, status, headers, body, head=request.method == "HEAD")


async def answer(send: Send, status: int, value: Any) -> None:
    """Send a value as JSON; nothing for None."""
    body = b"" if value is None else json.dumps(value, default=str).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
