"""Parse requests and shape responses, for HTTP API events (payload 2.0) and direct invocations."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

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


def most_bytes(max_characters: int, batch_queries: int) -> int:
    """Return the largest body to parse, in bytes: a full batch of the longest queries, fully escaped.

    HTTP API accepts 10 MB, and parsing that alone takes longer than a request's time budget. A direct
    invocation is parsed by Lambda before the function runs, so this limit does not apply to it.
    """
    return batch_queries * (max_characters * _CHARACTER_BYTES + _QUERY_BYTES) + _OTHER_BYTES


type Asked = str | list[str | BadRequestError]


def is_http(event: object) -> bool:
    """Return whether the event comes from the HTTP API; otherwise it is a direct invocation."""
    if not isinstance(event, Mapping):
        return False
    request = event.get("requestContext")
    return isinstance(request, Mapping) and "http" in request


DIRECT = "direct"
"""The caller of all direct invocations: Lambda tells a function nothing about who invokes it."""

# Of an ARN; IAM's longest are shorter. A direct invocation may claim any caller, of any length.
_MOST_CALLER_CHARACTERS = 256


def caller(event: object) -> str:
    """Return who sent a request: the ARN of a user or a role, as the HTTP API authorized it.

    All sessions of a role are one caller, because whoever assumes a role chooses the session's name; and all
    federated users of an account, because an IAM user chooses their names (sts:GetFederationToken).
    """
    found = event
    for name in ("requestContext", "authorizer", "iam", "userArn"):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, str) or not found:
        return DIRECT
    arn = found[:_MOST_CALLER_CHARACTERS]
    is_session = ":assumed-role/" in arn or ":federated-user/" in arn
    return arn.rpartition("/")[0] if is_session else arn


def read(event: object, *, http: bool, max_characters: int, batch_queries: int) -> Asked:
    """Return the query of a request, or the list of queries of a batch. Raises BadRequestError.

    Over HTTP, `POST /routes` takes a batch and `POST /route` one query; a direct invocation is a batch if it
    has "queries". An invalid query of a batch gets an error object; the others are still answered.
    """
    request = _body(event, most_bytes(max_characters, batch_queries)) if http else event
    is_batch = _path(event) == "/routes" if http else isinstance(request, Mapping) and "queries" in request
    if not isinstance(request, Mapping):
        example = '{"queries": ["...", "..."]}' if is_batch else '{"query": "..."}'
        raise BadRequestError("invalid_request", f"Expected a JSON object: {example}.")
    if is_batch:
        return _batch(request, max_characters, batch_queries)
    if "query" not in request:
        raise BadRequestError("missing_query", 'The request has no "query".')
    return _query(request["query"], '"query"', max_characters)


def _batch(
    request: Mapping[str, Any], max_characters: int, batch_queries: int
) -> list[str | BadRequestError]:
    if "queries" not in request:
        raise BadRequestError("missing_queries", 'The request has no "queries".')
    queries = request["queries"]
    if not isinstance(queries, list):
        raise BadRequestError("invalid_queries", '"queries" must be a list of strings.')
    if not 1 <= len(queries) <= batch_queries:
        raise BadRequestError(
            "wrong_number_of_queries", f'"queries" has {len(queries)}; 1 to {batch_queries} are allowed.'
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
