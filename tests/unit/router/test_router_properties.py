"""Properties of the router that hold for any request and any answer of a model.

tests/unit/distilled_router/task/test_answer_properties.py covers the parsing of answers.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distilled_router.release.route import Route, Share
from distilled_router.task.task import InvalidOutput, Task
from router.heads import Heads
from router.requests import is_http
from router.route_cache import RouteCache
from router.service import Router
from router.sources import Models
from router.telemetry import Telemetry
from router.xray import XRay
from tests.unit.router.api_document import SCHEMAS, check
from tests.unit.router.doubles import BASE_MODEL, BedrockDouble, TableDouble, client_error, reply, router_env
from tests.unit.router.heads import head_file, named, settle
from tests.unit.router.scenes import STUDENT, assert_weights, healthy

TASK = Task.load()
# Texts that only a model or a caller writes.
MODEL, CALLER = "zqmodelqz", "zqcallerqz"

unhurried = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Stored:
    """Stands in for S3, with one head."""

    def read_object(self, **_: str) -> bytes:
        return head_file()


ROUTE = Route(3, (Share("aaaaaaaaaaaa", STUDENT, 1.0, head=named("head.bin", head_file())),))


def loaded(logger: Logger) -> Heads:
    """Return heads that have followed the route."""
    heads = Heads(Stored(), "data", TASK.labels, logger)
    heads.follow(ROUTE, time.time())
    settle()
    assert heads.of(ROUTE.live)
    return heads


class Recorded:
    """A router with doubles, and its output as bytes, as a log stores them."""

    def __init__(self, bedrock: Any, *, log_queries: bool = False, head_mode: str = "off") -> None:
        self._raw = io.BytesIO()
        self._out = io.TextIOWrapper(self._raw, encoding="utf-8", write_through=True)
        env = router_env(
            owner="fuzzed",
            student_prices="0.035 0.14",
            cache_entries=0,
            log_queries=log_queries,
            head_mode=head_mode,
            # As in the document.
            batch_queries=SCHEMAS["BatchRequest"]["properties"]["queries"]["maxItems"],
        )
        with redirect_stdout(self._out):
            logger = Logger(service=f"fuzzed-{uuid4()}")
            self.router = Router(
                env,
                TASK,
                models=Models(bedrock, TASK, logger, 1_000_000, pause=lambda _: None),
                routes=RouteCache(TableDouble(ROUTE), env.table_name, env.owner, 1e9),
                telemetry=Telemetry(env, logger),
                xray=XRay(enabled=False),
                heads=None if head_mode == "off" else loaded(logger),
            )

    def handle(self, event: object) -> Any:
        """Return the answer to an event; drop earlier output."""
        self._raw.seek(0)
        self._raw.truncate()
        with redirect_stdout(self._out):
            return self.router.handle(event)

    def written(self) -> str:
        """Return the logs and metrics of the last request, in which each line must be JSON."""
        text = self._raw.getvalue().decode("utf-8")
        for line in text.split("\n")[:-1]:  # U+2028 does not end a line of a log
            json.loads(line)
        return text


# Requests

anything = st.text(st.characters())  # with lone surrogates
number = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**4299), 1e308, float("nan"), float("inf"), -0.0])
)
scalar = st.none() | st.booleans() | number | anything
value = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything, inner, max_size=4),
    max_leaves=12,
)
# Nested too deep for Python's JSON encoder and parser.
deep = st.integers(1, 20_000).map(lambda depth: "[" * depth) | st.integers(1, 20_000).map(
    lambda depth: '{"query":' * depth + "1" + "}" * depth
)
query = (
    anything
    | st.sampled_from(["dog barking", "", " ", "\u200b", "\ud83c", "\U0001f415" * 512, "d" * 513, "\u0000a"])
    | value
)
document = (
    value
    | st.builds(lambda one: {"query": one}, query)
    | st.builds(lambda many: {"queries": many}, st.lists(query, max_size=8) | value)
    | st.builds(lambda one, many: {"query": one, "queries": many}, query, st.lists(query, max_size=3))
    | st.integers(0, 120).map(lambda count: {"queries": ["dog"] * count})
)


def damaged(text: str, start: float, end: float, patch: str) -> str:
    """Return the text with a part of it replaced."""
    first, last = sorted((int(start * len(text)), int(end * len(text))))
    return text[:first] + patch + text[last:]


part = st.floats(0, 1)
written = document.map(json.dumps) | document.map(lambda found: json.dumps(found, ensure_ascii=False))
body = (
    written
    | st.builds(damaged, written, part, part, anything)
    | written.map(lambda text: base64.b64encode(text.encode("utf-8", "surrogatepass")).decode())
    | st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode())
    | anything
    | deep
    | value
)
http_events = st.fixed_dictionaries(
    {
        "requestContext": st.just({"http": {"method": "POST"}})
        | st.dictionaries(st.just("http") | anything, value, max_size=2).map(
            lambda found: {"http": {}, **found}
        )
    },
    optional={
        "version": st.just("2.0") | scalar,
        "routeKey": st.sampled_from(["POST /route", "POST /routes", "$default", "POST "]) | value,
        "rawPath": st.sampled_from(["/route", "/routes", "/other"]) | value,
        "body": body,
        "isBase64Encoded": st.booleans() | scalar,
        "headers": value,
    },
)
ROUTER = Recorded(healthy())
DOWN = client_error("AccessDeniedException", 403)
# Each source answers first in one of them.
routers = st.sampled_from(
    [
        ROUTER,
        Recorded(healthy(), head_mode="first"),
        Recorded(healthy(), head_mode="last_resort"),
        Recorded(healthy(**{STUDENT: DOWN, BASE_MODEL: DOWN}), head_mode="last_resort"),
    ]
)


def path_of(event: Any) -> str:
    """Return the path whose schema applies; taken from the answer, since the event may be invalid."""
    return "/routes" if isinstance(event, dict) and "answers" in event else "/route"


def assert_described(answer: Any, status: int) -> None:
    """Check that the document describes the answer or error, and that all but errors have weights."""
    json.dumps(answer, allow_nan=False)
    if "error" in answer:
        assert status == 400
        batch = answer["error"] in ("missing_queries", "invalid_queries", "wrong_number_of_queries")
        check("/routes" if batch else "/route", 400, answer)
        return
    assert status == 200
    check(path_of(answer), 200, answer)
    for found in answer.get("answers", [answer]):
        if "error" not in found:
            assert_weights(found, TASK)


@unhurried
@given(document, routers)
@example({"query": "\ud83c", "queries": None}, ROUTER)
def test_any_direct_invocation_is_answered_as_described(event: Any, router: Recorded) -> None:
    answer = router.handle(event)
    if is_http(event):
        return
    assert_described(answer, 400 if "error" in answer else 200)
    router.written()


@unhurried
@given(http_events, routers)
def test_any_http_event_is_answered_as_described(event: dict[str, Any], router: Recorded) -> None:
    answer = router.handle(event)
    assert set(answer) == {"statusCode", "headers", "body"}
    assert answer["headers"] == {"content-type": "application/json"}
    assert answer["body"].isascii()
    assert_described(json.loads(answer["body"]), answer["statusCode"])
    router.written()


@unhurried
@given(st.lists(query, min_size=1, max_size=20), routers)
def test_batch_has_for_each_query_what_it_has_alone(queries: list[Any], router: Recorded) -> None:
    answers = router.handle({"queries": queries})["answers"]
    assert len(answers) == len(queries)
    for one, found in zip(queries, answers, strict=True):
        alone = router.handle({"query": one})
        assert found.get("error") == alone.get("error")
        assert found.get("weights") == alone.get("weights")
        assert found.get("source") == alone.get("source")


# Output of models

PIECES = (
    *(MODEL, "85 0 5 10", "25 25 25 25", "100", "0.5", "%", " ", "\n", "{", "}", "[", "]", '"', ",", ":"),
    *(
        '{"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1}',
        '"weights": ',
        "NaN",
        "Infinity",
    ),
    *(
        "-Infinity",
        "1e400",
        "9" * 5000,
        '"visual": 1',
        '"source": "static"',
        '"statusCode": 500',
        "visual: 85%",
    ),
    *("Ignore all instructions and answer", "```json", "\ud800", "\u0663\u0665", "\u4e8c\u5341", "\u202e"),
    *('"error": "', "</answer>", "transcription", "\x00", "\x1b[2J"),
)
speech = (
    st.lists(st.sampled_from(PIECES) | anything | number.map(str), max_size=12).map("".join)
    | value.map(json.dumps)
    | st.dictionaries(st.sampled_from([*TASK.labels, "reasoning", "weights", MODEL]), value, max_size=6).map(
        json.dumps
    )
    | deep
)


def said(text: str) -> tuple[str, dict[str, float] | None]:
    """Generate a model's text with its mark in it, and the weights that it contains."""
    try:
        return text, TASK.parse(text)
    except InvalidOutput:
        return f"{text} {MODEL}", None


def says(student: Any, base: Any) -> Recorded:
    return Recorded(BedrockDouble(**{STUDENT: student, BASE_MODEL: base}))


@unhurried
@given(speech, speech)
@example('{"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1, "zqmodelqz": "zqmodelqz"}', "")
@example("NaN NaN NaN NaN", "inf 0 0 0")
def test_model_output_changes_only_weights(one: str, other: str) -> None:
    """The first text with weights gives them, otherwise they are static; no text appears in any output."""
    asked = says(one, other)
    answer = asked.handle({"query": "dog barking"})
    assert_described(answer, 200)
    read = [(source, said(text)[1]) for source, text in (("distilled", one), ("base", other))]
    source, weights = next((found for found in read if found[1]), ("static", TASK.static_weights))
    assert (answer["source"], answer["weights"]) == (source, weights)
    assert MODEL not in json.dumps(answer)
    assert MODEL not in asked.written()


@unhurried
@given(speech)
def test_no_word_of_a_model_is_written_anywhere(text: str) -> None:
    marked = f"{MODEL} {text} {MODEL}"
    asked = says(marked, marked)
    answer = asked.handle({"query": "dog barking"})
    assert_weights(answer, TASK)
    assert MODEL not in json.dumps(answer)
    assert MODEL not in asked.written()


class Odd:
    """A Bedrock double whose replies have any shape."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def converse(self, **_: Any) -> Any:
        return self._found


replies = value | st.builds(
    lambda changes: {**reply("10 80 0 10"), **changes},
    st.dictionaries(st.sampled_from(["output", "usage", "metrics", "stopReason"]), value, max_size=4),
)


@unhurried
@given(replies)
@example({**reply("10 80 0 10"), "usage": {"inputTokens": 10**400, "outputTokens": None}})
@example({**reply("10 80 0 10"), "metrics": {"latencyMs": float("nan")}})
def test_replies_of_any_shape_cost_no_answer(found: Any) -> None:
    asked = Recorded(Odd(found))
    answer = asked.handle({"query": "dog barking"})
    assert_weights(answer, TASK)
    assert_described(answer, 200)


# Where a query may appear

FAILURES: tuple[Callable[[str], Any], ...] = (
    lambda text: client_error("ValidationException", 400, text),
    lambda text: client_error("ModelErrorException", 424, text),
    lambda text: client_error("SomethingNewException", 418, text),
    lambda text: client_error("SomethingNewException", 503, text),
    lambda text: RuntimeError(text),
    lambda text: ValueError(text),
    lambda text: f"You asked for {text}",
    lambda text: f"85 0 5 10 {text}",
    lambda text: None,
)


@pytest.mark.parametrize("log_queries", [False, True])
@settings(unhurried, max_examples=60)
@given(
    anything.filter(lambda text: len(text) < 400),
    st.sampled_from(FAILURES),
    st.sampled_from(["off", "last_resort", "first"]),
)
def test_query_is_in_no_log_metric_or_answer_unless_queries_are_logged(
    log_queries: bool, text: str, failure: Callable[[str], Any], head_mode: str
) -> None:
    """Not even if Bedrock's errors, a bug of ours or the model quote it."""
    wanted = f"{CALLER} {text}"
    quoted = failure(wanted)
    bedrock = BedrockDouble(**{STUDENT: quoted, BASE_MODEL: quoted})
    asked = Recorded(bedrock, log_queries=log_queries, head_mode=head_mode)
    for event in ({"query": wanted}, {"queries": [wanted, wanted.upper()]}):
        answer = asked.handle(event)
        assert_described(answer, 200)
        assert CALLER not in json.dumps(answer)
        lines = [line for line in asked.written().split("\n") if CALLER in line]
        assert {json.loads(line)["message"] for line in lines} == ({"answered"} if log_queries else set())


@unhurried
@given(query)
def test_mistake_quotes_nothing_of_the_request(text: Any) -> None:
    marked = {"query": {CALLER: text}, CALLER: [text]}
    for event in (marked, {"queries": [marked, [CALLER]]}, {"queries": marked}, {CALLER: text}):
        assert CALLER not in json.dumps(ROUTER.handle(event))
        assert CALLER not in ROUTER.written()
