"""What a request says, and the answer's shape: an HTTP API event (payload 2.0) or a direct invocation."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

# A batch's own limit: what a search page shows, and what a budget of seconds can ask.
MOST_QUERIES = 100
# JSON writes a character in at most 12 bytes, \ud83d\ude00; a query has quotes, a comma and some white space
# besides, and a body its braces and a field or two that nobody asked for.
_CHARACTER_BYTES, _QUERY_BYTES, _OTHER_BYTES = 12, 32, 1024


class BadRequestError(Exception):
    """The caller's mistake. `error` is a word for programs, the message a sentence for people."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error

    @property
    def answer(self) -> dict[str, Any]:
        """The answer's body."""
        return {"error": self.error, "message": str(self)}


def most_bytes(max_characters: int) -> int:
    """The largest body that is parsed: a whole batch of the longest queries, however they are escaped.

    HTTP API passes 10 MB on, whose parsing alone would cost more than a request's time. A direct invocation
    is parsed by Lambda before anybody is asked, and has no such limit.
    """
    return MOST_QUERIES * (max_characters * _CHARACTER_BYTES + _QUERY_BYTES) + _OTHER_BYTES


type Asked = str | list[str | BadRequestError]


def is_http(event: object) -> bool:
    """Whether the event comes from the HTTP API; any other is a direct invocation."""
    if not isinstance(event, Mapping):
        return False
    request = event.get("requestContext")
    return isinstance(request, Mapping) and "http" in request


def read(event: object, *, http: bool, max_characters: int) -> Asked:
    """The query or queries of a request. Raises BadRequestError.

    `POST /routes` takes a batch, `POST /route` one query; a direct invocation is told by its document. A
    query of a batch that is none becomes its own error, so that it keeps no other from its answer.
    """
    request = _body(event, most_bytes(max_characters)) if http else event
    is_batch = _path(event) == "/routes" if http else isinstance(request, Mapping) and "queries" in request
    if not isinstance(request, Mapping):
        example = '{"queries": ["...", "..."]}' if is_batch else '{"query": "..."}'
        raise BadRequestError("invalid_request", f"Expected a JSON object: {example}.")
    if is_batch:
        return _batch(request, max_characters)
    if "query" not in request:
        raise BadRequestError("missing_query", 'The request has no "query".')
    return _query(request["query"], '"query"', max_characters)


def _batch(request: Mapping[str, Any], max_characters: int) -> list[str | BadRequestError]:
    if "queries" not in request:
        raise BadRequestError("missing_queries", 'The request has no "queries".')
    queries = request["queries"]
    if not isinstance(queries, list):
        raise BadRequestError("invalid_queries", '"queries" must be a list of strings.')
    if not 1 <= len(queries) <= MOST_QUERIES:
        raise BadRequestError(
            "wrong_number_of_queries", f'"queries" has {len(queries)}; 1 to {MOST_QUERIES} are allowed.'
        )
    found: list[str | BadRequestError] = []
    for place, query in enumerate(queries):
        try:
            found.append(_query(query, f"queries[{place}]", max_characters))
        except BadRequestError as error:
            found.append(error)
    return found


def _query(query: object, name: str, max_characters: int) -> str:
    """One query, without the white space around it. Raises BadRequestError."""
    if not isinstance(query, str):
        raise BadRequestError("invalid_query", f"{name} must be a string.")
    query = query.strip()
    # First, so that what comes after looks at a bounded text only.
    if len(query) > max_characters:
        raise BadRequestError(
            "query_too_long", f"{name} has {len(query)} characters, at most {max_characters} are allowed."
        )
    if not _visible(query):
        raise BadRequestError("empty_query", f"{name} is empty.")
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


def _path(event: object) -> str:
    """The path that was asked for, without a stage; HTTP API sends both, an emulator perhaps one of them."""
    if not isinstance(event, Mapping):
        return ""
    key = event.get("routeKey")
    path = key.partition(" ")[2] if isinstance(key, str) and key.startswith("POST ") else event.get("rawPath")
    return path if isinstance(path, str) else ""


def _body(event: object, most: int) -> object:
    body = event.get("body") if isinstance(event, Mapping) else None
    encoded = isinstance(event, Mapping) and event.get("isBase64Encoded") is True
    # Base64 writes three bytes in four characters. A text's characters are counted, not its bytes: what
    # they cost is the same, and nothing has to be encoded for it.
    if isinstance(body, str) and len(body) > (-(-most // 3) * 4 if encoded else most):
        raise BadRequestError("body_too_large", f"The body is larger than {most} bytes.")
    try:
        # RecursionError: a body of brackets only. ValueError covers bad base64, bytes and JSON.
        return json.loads(base64.b64decode(body, validate=True) if encoded else body)  # type: ignore[arg-type]  # None and others raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise BadRequestError("invalid_json", "The body is not JSON.") from None


def _visible(text: str) -> bool:
    """Whether anything can be seen: Bedrock refuses blank text, and zero-width characters are as blank."""
    return any(not c.isspace() and unicodedata.category(c) not in {"Cc", "Cf"} for c in text)
