"""What a request says, and the answer's shape: an HTTP API event (payload 2.0) or a direct invocation."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Mapping
from typing import Any


class BadRequestError(Exception):
    """The caller's mistake. `error` is a word for programs, the message a sentence for people."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error

    @property
    def answer(self) -> dict[str, Any]:
        """The answer's body."""
        return {"error": self.error, "message": str(self)}


def is_http(event: object) -> bool:
    """Whether the event comes from the HTTP API; any other is a direct invocation."""
    if not isinstance(event, Mapping):
        return False
    request = event.get("requestContext")
    return isinstance(request, Mapping) and "http" in request


def read_query(event: object, *, http: bool, max_characters: int) -> str:
    """The query, without the white space around it. Raises BadRequestError."""
    request = _body(event) if http else event
    if not isinstance(request, Mapping):
        raise BadRequestError("invalid_request", 'Expected a JSON object: {"query": "..."}.')
    if "query" not in request:
        raise BadRequestError("missing_query", 'The request has no "query".')
    query = request["query"]
    if not isinstance(query, str):
        raise BadRequestError("invalid_query", '"query" must be a string.')
    query = query.strip()
    if not _visible(query):
        raise BadRequestError("empty_query", '"query" is empty.')
    if len(query) > max_characters:
        raise BadRequestError(
            "query_too_long", f'"query" has {len(query)} characters, at most {max_characters} are allowed.'
        )
    # Browsers that cut a text in the middle of an emoji send half of it, which no encoder takes.
    return query.encode("utf-8", "replace").decode("utf-8")


def normalised(query: str) -> str:
    """The form in which two queries are the same one: for the cache, and for choosing a release."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())


def respond(answer: Mapping[str, Any], *, http: bool, status: int = 200) -> dict[str, Any]:
    """The answer as the caller takes it: HTTP, or the bare object."""
    if not http:
        return dict(answer)
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(answer, separators=(",", ":")),
    }


def _body(event: object) -> object:
    body = event.get("body") if isinstance(event, Mapping) else None
    encoded = isinstance(event, Mapping) and event.get("isBase64Encoded") is True
    try:
        # RecursionError: a body of brackets only. ValueError covers bad base64, bytes and JSON.
        return json.loads(base64.b64decode(body, validate=True) if encoded else body)  # type: ignore[arg-type]  # None and others raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise BadRequestError("invalid_json", "The body is not JSON.") from None


def _visible(text: str) -> bool:
    """Whether anything can be seen: Bedrock refuses blank text, and zero-width characters are as blank."""
    return any(not c.isspace() and unicodedata.category(c) not in {"Cc", "Cf"} for c in text)
