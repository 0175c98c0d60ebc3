"""Valid and invalid requests."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from router import requests
from router.requests import DIRECT, Asked, BadRequestError, caller, is_http, most_bytes, respond
from tests.unit.cpu_time import takes_less

HTTP: dict[str, Any] = {
    "version": "2.0",
    "routeKey": "POST /route",
    "requestContext": {"http": {"method": "POST"}},
}


def http_event(body: str | None, encoded: bool = False) -> dict[str, Any]:
    return {**HTTP, "body": body, "isBase64Encoded": encoded}


MOST_QUERIES = 100


def read(event: object, batch_queries: int = MOST_QUERIES) -> Asked:
    return requests.read(event, http=is_http(event), max_characters=20, batch_queries=batch_queries)


def batch(body: object) -> dict[str, Any]:
    return {**http_event(json.dumps(body)), "routeKey": "POST /routes"}


@pytest.mark.parametrize(
    "event",
    [
        http_event('{"query": " dog barking "}'),
        http_event(base64.b64encode(b'{"query": "dog barking"}').decode(), encoded=True),
        http_event(base64.b64encode(b'\xef\xbb\xbf{"query": "dog barking"}').decode(), encoded=True),
        http_event('{"query": "dog barking", "user": "somebody"}'),
        http_event('{"query": "dog barking", "user": ' + "7" * 5_000 + "}"),
        http_event('{"user": -' + "7" * 5_000 + ', "query": "dog barking"}'),
        http_event('\ufeff{"query": "dog barking"}'),
        {"query": "dog barking"},
    ],
)
def test_query_is_read(event: dict[str, Any]) -> None:
    assert read(event) == "dog barking"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (http_event(None), "invalid_json"),
        (http_event(""), "invalid_json"),
        (http_event("query=dog"), "invalid_json"),
        (http_event("[" * 20_000), "invalid_json"),
        (http_event("%%%", encoded=True), "invalid_json"),
        (http_event(base64.b64encode(b"\xff\xfe\xfd").decode(), encoded=True), "invalid_json"),
        (HTTP, "invalid_json"),
        (http_event('["dog"]'), "invalid_request"),
        (http_event('"dog"'), "invalid_request"),
        (http_event("null"), "invalid_request"),
        (http_event("{}"), "missing_query"),
        (http_event('{"query": null}'), "invalid_query"),
        (http_event('{"query": 7}'), "invalid_query"),
        (http_event('{"query": ' + "1" * 10_000 + "}"), "invalid_query"),
        (http_event('{"query": ["dog"]}'), "invalid_query"),
        (http_event('{"query": ""}'), "empty_query"),
        (http_event('{"query": " \\n\\t "}'), "empty_query"),
        (http_event('{"query": "\\u200b\\u0000"}'), "empty_query"),
        (http_event(json.dumps({"query": "d" * 21})), "query_too_long"),
        (http_event(json.dumps({"query": "\u200b" * 21})), "query_too_long"),
        ("dog", "invalid_request"),
        (None, "invalid_request"),
        ({}, "missing_query"),
        ({"query": "  "}, "empty_query"),
    ],
)
def test_caller_mistake_is_named(event: object, error: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        read(event)
    assert raised.value.answer["error"] == error
    assert raised.value.answer["message"]


def test_batch_is_read_in_its_order_and_a_mistake_in_it_is_its_own() -> None:
    for event in (batch({"queries": [" dog ", "", 7, "cat"]}), {"queries": [" dog ", "", 7, "cat"]}):
        asked = read(event)
        assert isinstance(asked, list)
        first, second, third, last = asked
        assert (first, last) == ("dog", "cat")
        assert isinstance(second, BadRequestError)
        assert second.answer == {"error": "empty_query", "message": "queries[1] is empty."}
        assert isinstance(third, BadRequestError)
        assert third.answer == {"error": "invalid_query", "message": "queries[2] must be a string."}


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (batch([]), "invalid_request"),
        (batch({}), "missing_queries"),
        (batch({"query": "dog"}), "missing_queries"),
        (batch({"queries": "dog"}), "invalid_queries"),
        (batch({"queries": {"0": "dog"}}), "invalid_queries"),
        (batch({"queries": []}), "wrong_number_of_queries"),
        (batch({"queries": ["dog"] * (MOST_QUERIES + 1)}), "wrong_number_of_queries"),
        ({"queries": None}, "invalid_queries"),
        (http_event('{"queries": ["dog"]}'), "missing_query"),
    ],
)
def test_mistake_of_a_whole_batch_is_named(event: object, error: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        read(event)
    assert raised.value.answer["error"] == error


def test_batch_has_as_many_queries_as_the_deployment_allows() -> None:
    assert len(read(batch({"queries": ["dog"] * 20}), batch_queries=20)) == 20
    with pytest.raises(BadRequestError) as raised:
        read(batch({"queries": ["dog"] * 21}), batch_queries=20)
    assert raised.value.answer == {
        "error": "wrong_number_of_queries",
        "message": '"queries" has 21; 1 to 20 are allowed.',
    }
    assert most_bytes(512, 20) < most_bytes(512, 100) / 4


ROLE = "arn:aws:sts::000000000000:assumed-role/search-backend"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("arn:aws:iam::000000000000:user/ann", "arn:aws:iam::000000000000:user/ann"),
        (f"{ROLE}/i-0123456789", ROLE),
        (f"{ROLE}/another-session", ROLE),
        ("arn:aws:sts::000000000000:federated-user/bob", "arn:aws:sts::000000000000:federated-user"),
        ("arn:aws:iam::000000000000:user/" + "x" * 5_000, "arn:aws:iam::000000000000:user/" + "x" * 225),
        ("", DIRECT),
        (None, DIRECT),
        (7, DIRECT),
        (["a"], DIRECT),
        ({}, DIRECT),
    ],
)
def test_caller_is_a_user_or_a_role_whatever_its_session(user: object, expected: str) -> None:
    """Whoever assumes a role chooses the session's name, and could otherwise be as many callers as wanted."""
    event = {"requestContext": {"http": {}, "authorizer": {"iam": {"userArn": user}}}}
    assert caller(event) == expected


@pytest.mark.parametrize(
    "event", [None, "dog", {}, HTTP, {"requestContext": {"authorizer": None}}, {"requestContext": []}]
)
def test_event_that_names_nobody_is_a_direct_invocation(event: object) -> None:
    assert caller(event) == DIRECT


def test_path_in_either_form_selects_a_batch() -> None:
    event = http_event('{"queries": ["dog"]}')
    del event["routeKey"]
    assert read({**event, "rawPath": "/routes"}) == ["dog"]
    with pytest.raises(BadRequestError):
        read({**event, "rawPath": "/route"})
    with pytest.raises(BadRequestError):
        read({**event, "routeKey": 7, "rawPath": ["/routes"]})


def test_longest_query_is_allowed() -> None:
    assert read({"query": "  " + "d" * 20 + "  "}) == "d" * 20


def test_half_an_emoji_is_no_mistake_of_the_caller() -> None:
    assert read(http_event('{"query": "party \\ud83c"}')) == "party ?"


def test_answer_is_http_or_bare() -> None:
    answer = {"intent": "audio"}
    assert respond(answer, http=False) == answer
    http = respond(answer, http=True, status=400)
    assert http["statusCode"] == 400
    assert http["headers"] == {"content-type": "application/json"}
    assert json.loads(http["body"]) == answer


def in_time(event: object, error: str) -> bool:
    """Return whether rejecting an event takes less than 50 ms of CPU time, which no budget covers."""

    def refuse() -> None:
        with pytest.raises(BadRequestError) as raised:
            read(event)
        assert raised.value.error == error

    return takes_less(refuse, 0.05)


def test_invisible_query_of_any_length_costs_nothing() -> None:
    assert in_time({"query": "\u200b" * 2_000_000}, "query_too_long")


# The largest body that `read` above accepts.
LARGEST = most_bytes(20, MOST_QUERIES)


@pytest.mark.parametrize("filler", ["[", "{", '{"a":', "1", '"', " ", "\\u0000", "[[],"])
def test_body_that_is_too_large_is_not_parsed(filler: str) -> None:
    body = filler * (10_000_000 // len(filler))
    assert in_time(http_event(body), "body_too_large")
    assert in_time(http_event(body, encoded=True), "body_too_large")


@pytest.mark.parametrize("filler", ["[", "{", '{"a":', "1", '"', "\\u0000", "[[],"])
def test_largest_body_is_parsed_in_no_time(filler: str) -> None:
    """For the sample task's limit and any content."""
    most = most_bytes(512, MOST_QUERIES)
    event = http_event(filler * (most // len(filler)))

    def refuse() -> None:
        with pytest.raises(BadRequestError) as raised:
            requests.read(event, http=True, max_characters=512, batch_queries=MOST_QUERIES)
        # Digits only are a number.
        assert raised.value.error == ("invalid_request" if filler == "1" else "invalid_json")

    assert takes_less(refuse, 0.25)


@pytest.mark.parametrize(("depth", "error"), [(200, None), (14_000, "invalid_json")])
def test_unexpected_nesting_is_ignored_or_rejected(depth: int, error: str | None) -> None:
    event = http_event('{"query": "dog", "other": ' + "[" * depth + "]" * depth + "}")
    if error:
        assert in_time(event, error)
    else:
        assert read(event) == "dog"


def test_limit_of_a_body_is_exact() -> None:
    body = '{"query": "dog"}'.ljust(LARGEST)
    assert read(http_event(body)) == "dog"
    assert read(http_event(base64.b64encode(body.encode()).decode(), encoded=True)) == "dog"
    assert in_time(http_event(body + " "), "body_too_large")
    longer = base64.b64encode(f"{body}   ".encode()).decode()
    assert in_time(http_event(longer, encoded=True), "body_too_large")


@pytest.mark.parametrize("character", ["\U0001f600", "\u00e9", "d", "\x01"])
def test_largest_batch_fits_however_it_is_written(character: str) -> None:
    queries = [character * 19 + "d"] * MOST_QUERIES
    for body in (
        json.dumps({"queries": queries}, indent=4),
        json.dumps({"queries": queries}, ensure_ascii=False),
        '{"queries": [' + ", ".join('"' + "\\ud83d\\ude00" * 20 + '"' for _ in queries) + "]}",
    ):
        raw = base64.b64encode(body.encode()).decode()
        for event in (http_event(body), http_event(raw, encoded=True)):
            asked = read({**event, "routeKey": "POST /routes"})
            assert len(asked) == MOST_QUERIES
            assert all(isinstance(query, str) for query in asked)
