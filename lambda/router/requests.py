"""Parse requests and shape responses, for HTTP API events (payload 2.0) and direct invocations."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

# As many as a search page shows, and as a budget of seconds can answer.
MOST_QUERIES = 100
# JSON escapes a character in at most 12 bytes, \ud83d\ude00. A query also has quotes, a comma and white
# space; a body also has braces and perhaps unknown fields.
_CHARACTER_BYTES, _QUERY_BYTES, _OTHER_BYTES = 12, 32, 1024


class BadRequestError(Exception):
    """The request is invalid. `error` is a code for programs, the message a sentence for people."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error

    @property
    def answer(self) -> dict[str, Any]:
        """Return the response body."""
        return {"error": self.error, "message": str(self)}


def most_bytes(max_characters: int) -> int:
    """Return the largest body to parse, in bytes: a full batch of the longest queries, fully escaped.

    HTTP API accepts 10 MB, and parsing that alone takes longer than a request's time budget. A direct
    invocation is parsed by Lambda before the function runs, so this limit does not apply to it.
    """
    return MOST_QUERIES * (max_characters * _CHARACTER_BYTES + _QUERY_BYTES) + _OTHER_BYTES


type Asked = str | list[str | BadRequestError]


def is_http(event: object) -> bool:
    """Return whether the event comes from the HTTP API; otherwise it is a direct invocation."""
    if not isinstance(event, Mapping):
        return False
    request = event.get("requestContext")
    return isinstance(request, Mapping) and "http" in request


def read(event: object, *, http: bool, max_characters: int) -> Asked:
    """Return the query of a request, or the list of queries of a batch. Raises BadRequestError.

    Over HTTP, `POST /routes` takes a batch and `POST /route` one query; a direct invocation is a batch if it
    has "queries". An invalid query of a batch gets an error object; the others are still answered.
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
    """Return a valid query without surrounding white space. Raises BadRequestError."""
    if not isinstance(query, str):
        raise BadRequestError("invalid_query", f"{name} must be a string.")
    query = query.strip()
    # First, so that the later checks only read a text of limited length.
    if len(query) > max_characters:
        raise BadRequestError(
            "query_too_long", f"{name} has {len(query)} characters, at most {max_characters} are allowed."
        )
    if not _visible(query):
        raise BadRequestError("empty_query", f"{name} is empty.")
    # Browsers that truncate a text inside an emoji send half a surrogate pair, which can't be encoded.
    return query.encode("utf-8", "replace").decode("utf-8")


def respond(answer: Mapping[str, Any], *, http: bool, status: int = 200) -> dict[str, Any]:
    """Return the answer as an HTTP response, or as it is for a direct invocation."""
    if not http:
        return dict(answer)
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(answer, separators=(",", ":")),
    }


def _path(event: object) -> str:
    """Return the requested path without the stage. HTTP API sends both fields, an emulator perhaps one."""
    if not isinstance(event, Mapping):
        return ""
    key = event.get("routeKey")
    path = key.partition(" ")[2] if isinstance(key, str) and key.startswith("POST ") else event.get("rawPath")
    return path if isinstance(path, str) else ""


def _body(event: object, most: int) -> object:
    body = event.get("body") if isinstance(event, Mapping) else None
    encoded = isinstance(event, Mapping) and event.get("isBase64Encoded") is True
    # Base64 writes three bytes in four characters. Counting characters instead of bytes saves encoding the
    # text, and the cost of parsing is the same.
    if isinstance(body, str) and len(body) > (-(-most // 3) * 4 if encoded else most):
        raise BadRequestError("body_too_large", f"The body is larger than {most} bytes.")
    try:
        text: Any = base64.b64decode(body, validate=True) if encoded else body  # type: ignore[arg-type]  # None and others raise TypeError
        if isinstance(text, str):
            text = text.removeprefix("\ufeff")  # a byte order mark; of bytes, json.loads removes it
        # No number is used. Python refuses whole numbers of more than 4,300 digits, and an unknown field may
        # have one. RecursionError: a body of nothing but brackets. ValueError: bad base64, bytes and JSON.
        return json.loads(text, parse_int=float)
    except (ValueError, TypeError, RecursionError):
        raise BadRequestError("invalid_json", "The body is not JSON.") from None


def _visible(text: str) -> bool:
    """Return whether a text has a visible character: Bedrock refuses blank text; zero-width is blank, too."""
    return any(not c.isspace() and unicodedata.category(c) not in {"Cc", "Cf"} for c in text)
