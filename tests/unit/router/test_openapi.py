"""docs/openapi.yaml matches the router: real answers and errors, and each word and limit in the code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]

from cdk_distilled_router.props import RouterProps
from distilled_router.release.route import Route, Share
from distilled_router.task.converse import Reason
from distilled_router.task.task import Task
from router import service
from router.allowances import Refusal
from router.requests import most_bytes
from router.sources import BASE, DISTILLED, HEAD, STATIC
from tests.unit.router.api_document import DOCUMENT, SCHEMAS, check, validator
from tests.unit.router.doubles import BASE_MODEL, TableDouble, client_error
from tests.unit.router.heads import head_file, settle, store_of
from tests.unit.router.scenes import LIVE_ROUTE, STUDENT, MakeBench, healthy

PROJECT = Path(__file__).parents[3]
CODE = [ast.parse(path.read_text(encoding="utf-8")) for path in (PROJECT / "lambda" / "router").glob("*.py")]
GUIDE = (PROJECT / "docs" / "router.md").read_text(encoding="utf-8")
BATCH_QUERIES: int = RouterProps.model_fields["batch_queries"].default
DOWN = client_error("ServiceUnavailableException", 503)


def send(made: Any, path: str, body: str) -> tuple[int, Any]:
    """Return the router's status and document for a body at a path."""
    event = {"version": "2.0", "routeKey": f"POST {path}", "requestContext": {"http": {}}, "body": body}
    answer = made.router.handle(event)
    return answer["statusCode"], json.loads(answer["body"])


def calls() -> Iterator[ast.Call]:
    for module in CODE:
        yield from (node for node in ast.walk(module) if isinstance(node, ast.Call))


def error_words() -> set[str]:
    """Return the first argument of each BadRequestError that the code raises."""
    words = [
        call.args[0]
        for call in calls()
        if isinstance(call.func, ast.Name) and call.func.id == "BadRequestError"
    ]
    return {ast.literal_eval(word) for word in words}  # one without a literal raises


def reason_words() -> set[str]:
    """Return the reasons of calls without a reply, of allowances, and every literal `reason="..."`."""
    words = {*get_args(Reason), *get_args(Refusal), service.NO_RELEASE, service.NO_ROUTE, service.INTERNAL}
    written = [word.value for call in calls() for word in call.keywords if word.arg == "reason"]
    return words | {str(value.value) for value in written if isinstance(value, ast.Constant)}


def table_words(heading: str) -> set[str]:
    """Return the words in code in the first column of the table under a heading of router.md."""
    section = GUIDE.partition(f"\n{heading}\n")[2].partition("\n#")[0].partition("|---")[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def references(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield str(node["$ref"])
        for value in node.values():
            yield from references(value)
    if isinstance(node, list):
        for value in node:
            yield from references(value)


# The document alone


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    used = set(references(DOCUMENT))
    for reference in used:
        _, _, kind, name = reference.split("/")
        assert name in DOCUMENT["components"][kind]
    assert {name for name in SCHEMAS if f"#/components/schemas/{name}" not in used} == set()


def test_operations_have_signatures_and_a_description_of_every_status() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["components"]["securitySchemes"]["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    for path in DOCUMENT["paths"].values():
        assert set(path) == {"post"}
        assert set(path["post"]["responses"]) == {"200", "400", "403", "404", "413", "429", "5XX"}
        assert "security" not in path["post"], "no operation goes without the common scheme"
    assert DOCUMENT["security"] == [{"sigv4": []}]


# Compared with the code


def test_labels_and_limits_are_those_of_the_code(task: Task) -> None:
    weights = SCHEMAS["Weights"]
    assert tuple(weights["properties"]) == tuple(weights["required"]) == task.labels
    assert tuple(SCHEMAS["Answer"]["properties"]["intent"]["enum"]) == task.labels
    assert SCHEMAS["Query"]["maxLength"] == task.max_query_characters
    for schema, field in (("BatchRequest", "queries"), ("BatchAnswer", "answers")):
        found = SCHEMAS[schema]["properties"][field]
        assert (found["minItems"], found["maxItems"]) == (1, BATCH_QUERIES)
    assert f"Weigh up to {BATCH_QUERIES} queries." == DOCUMENT["paths"]["/routes"]["post"]["summary"]
    assert f"1 to {BATCH_QUERIES} queries" in GUIDE
    limit = f"{most_bytes(task.max_query_characters, BATCH_QUERIES):,} bytes"
    assert limit in SCHEMAS["Error"]["properties"]["error"]["description"]
    assert limit in GUIDE


def test_error_words_are_those_that_the_code_raises() -> None:
    described = {
        word
        for schema in ("Error", "BatchError", "QueryError")
        for word in SCHEMAS[schema]["properties"]["error"]["enum"]
    }
    assert described == error_words() == table_words("## Errors")


def test_reasons_are_those_that_the_code_gives() -> None:
    answer = SCHEMAS["Answer"]["properties"]
    assert set(answer["reason"]["enum"]) - {None} == reason_words() == table_words("### Reasons")
    assert set(answer["source"]["enum"]) == {DISTILLED, BASE, HEAD, STATIC}


# Compared with real answers


@pytest.mark.parametrize(
    ("says", "route", "source", "reason"),
    [
        ({}, LIVE_ROUTE, "distilled", None),
        ({STUDENT: DOWN}, LIVE_ROUTE, "base", "unavailable"),
        ({STUDENT: "no weights", BASE_MODEL: DOWN}, LIVE_ROUTE, "static", "invalid_output"),
        ({STUDENT: RuntimeError("a bug")}, LIVE_ROUTE, "base", "internal"),
        ({}, None, "base", "no_release"),
        ({BASE_MODEL: DOWN}, None, "static", "unavailable"),
    ],
)
def test_answers_are_as_described(
    bench: MakeBench, says: dict[str, Any], route: Route | None, source: str, reason: str | None
) -> None:
    made = bench(healthy(**says), TableDouble(route))
    for _ in range(2):  # the second may come from the cache
        status, answer = send(made, "/route", '{"query": "dog barking"}')
        assert (status, answer["source"], answer["reason"]) == (200, source, reason)
        check("/route", status, answer)
    status, batch = send(made, "/routes", '{"queries": ["dog barking", "cat", "", 7, "' + "d" * 513 + '"]}')
    assert status == 200
    check("/routes", status, batch)
    assert [answer.get("error") for answer in batch["answers"]] == [
        *(None, None),
        *("empty_query", "invalid_query", "query_too_long"),
    ]


@pytest.mark.parametrize(("mode", "reason"), [("first", None), ("last_resort", "unavailable")])
def test_answers_of_a_head_are_as_described(bench: MakeBench, mode: str, reason: str | None) -> None:
    store, (file,) = store_of(head_file())
    route = Route(3, (Share("aaaaaaaaaaaa", STUDENT, 1.0, head=file),))
    with store.running():
        made = bench(healthy(**{STUDENT: DOWN, BASE_MODEL: DOWN}), TableDouble(route), store, head_mode=mode)
        made.ask("to load the head")
        settle()
        for _ in range(2):
            status, answer = send(made, "/route", '{"query": "engine roaring two"}')
            assert (status, answer["source"], answer["reason"]) == (200, "head", reason)
            check("/route", status, answer)


SINGLE = {
    "": "invalid_json",
    "[": "invalid_json",
    "[]": "invalid_request",
    "{}": "missing_query",
    '{"query": 7}': "invalid_query",
    '{"query": " "}': "empty_query",
    '{"query": "' + "d" * 513 + '"}': "query_too_long",
    " " * 700_000: "body_too_large",
}
BATCH = {
    "": "invalid_json",
    "[]": "invalid_request",
    "{}": "missing_queries",
    '{"queries": "dog"}': "invalid_queries",
    '{"queries": []}': "wrong_number_of_queries",
    " " * 700_000: "body_too_large",
}


@pytest.mark.parametrize(
    ("path", "schema", "mistakes"), [("/route", "Error", SINGLE), ("/routes", "BatchError", BATCH)]
)
def test_every_mistake_of_a_path_is_described_and_no_other(
    bench: MakeBench, path: str, schema: str, mistakes: dict[str, str]
) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    for body, error in mistakes.items():
        status, answer = send(made, path, body)
        assert (status, answer["error"]) == (400, error)
        check(path, status, answer)
    assert set(SCHEMAS[schema]["properties"]["error"]["enum"]) == set(mistakes.values())


ANSWER = {
    "weights": {"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1},
    "intent": "visual",
    "source": "base",
    "reason": "throttled",
    "release": None,
    "latency_ms": 1.0,
    "cached": False,
}


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"visual": 1.0}},
        {"weights": {**dict.fromkeys(("visual", "audio", "transcription", "metadata"), 0), "smell": 1}},
        {"weights": {"visual": 1.5, "audio": 0, "transcription": 0, "metadata": 0}},
        {"intent": "smell"},
        {"source": "distilled"},
        {"source": "head"},
        {"reason": None},
        {"reason": "An error occurred"},
        {"release": "aaaaaaaaaaaa"},
        {"latency_ms": "1"},
        {"text": "Sure!"},
    ],
)
def test_schema_refuses_what_the_router_never_says(change: dict[str, Any]) -> None:
    answers = validator("#/components/schemas/Answer")
    answers.validate(ANSWER)
    with pytest.raises(ValidationError):
        answers.validate({**ANSWER, **change})
