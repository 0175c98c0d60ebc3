"""The router as a whole, with test doubles: it always answers, and names the source."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from distilled_router.release.route import Route
from distilled_router.task.task import Task
from router.breaker import FAILURES, OPEN_SECONDS
from router.telemetry import Telemetry
from tests.unit.router.doubles import BASE_MODEL, ContextDouble, TableDouble, client_error
from tests.unit.router.scenes import LIVE_ROUTE, STUDENT, STUDENT_SAYS, MakeBench, healthy, student


def test_live_release_answers(bench: MakeBench, task: Task) -> None:
    table = TableDouble(LIVE_ROUTE)
    table.fails = 0.25  # is slow
    made = bench(healthy(), table)
    assert made.ask() == {
        "weights": {"visual": 0.1, "audio": 0.8, "transcription": 0.0, "metadata": 0.1},
        "intent": "audio",
        "source": "distilled",
        "reason": None,
        "release": "aaaaaaaaaaaa",
        "latency_ms": 250.0,
        "cached": False,
    }
    assert made.bedrock.calls == [
        {
            "modelId": STUDENT,
            "system": [{"text": task.student_prompt}],
            "messages": [{"role": "user", "content": [{"text": "dog barking"}]}],
            "inferenceConfig": {"maxTokens": 16, "temperature": 0.0},
        }
    ]


def test_base_model_answers_before_the_first_release(bench: MakeBench, task: Task) -> None:
    made = bench(healthy(), TableDouble(None))
    answer = made.ask()
    assert (answer["source"], answer["release"], answer["intent"]) == ("base", None, "visual")
    assert answer["reason"] == "no_release"
    assert made.bedrock.calls[0]["system"] == [{"text": task.teacher_prompt}]
    assert made.bedrock.calls[0]["inferenceConfig"]["maxTokens"] == 200


REFUSALS = [
    (client_error("ThrottlingException", 429), "throttled", 2),
    (client_error("ModelNotReadyException", 429), "not_ready", 2),
    (client_error("InternalServerException", 500), "unavailable", 2),
    (client_error("ServiceUnavailableException", 503), "unavailable", 2),
    (client_error("SomethingNewException", 502), "unavailable", 2),
    (client_error("SomethingNewException", 418), "error", 1),
    (client_error("AccessDeniedException", 403), "denied", 1),
    (client_error("ResourceNotFoundException", 404), "not_found", 1),
    (client_error("ModelTimeoutException", 408), "timed_out", 1),
    (client_error("ModelErrorException", 424), "model_error", 1),
    (client_error("ValidationException", 400), "refused", 1),
    (ReadTimeoutError(endpoint_url="https://bedrock"), "timed_out", 1),
    (EndpointConnectionError(endpoint_url="https://bedrock"), "unreachable", 2),
    (ConnectionClosedError(endpoint_url="https://bedrock"), "unreachable", 2),
    ("Sure! The weights are as you would expect.", "invalid_output", 1),
    ("90 90 90 90", "invalid_output", 1),
    (None, "empty_output", 1),
    (" \n", "empty_output", 1),
]


@pytest.mark.parametrize(("says", "reason", "attempts"), REFUSALS)
def test_student_that_fails_is_replaced_by_the_base_model(
    bench: MakeBench, says: Any, reason: str, attempts: int
) -> None:
    made = bench(student(says), TableDouble(LIVE_ROUTE))
    answer = made.ask()
    assert (answer["source"], answer["reason"], answer["release"]) == ("base", reason, None)
    assert made.bedrock.asked(STUDENT) == attempts
    log = made.logs()[-1]
    assert (log["source"], log["reason"], log["release"]) == ("distilled", reason, "aaaaaaaaaaaa")
    assert made.metrics()[0]["failures"] == {"distilled": reason}


def test_reason_is_of_the_model_that_should_have_answered(bench: MakeBench) -> None:
    down = client_error("ServiceUnavailableException", 503)
    made = bench(healthy(**{STUDENT: "no weights", BASE_MODEL: down}), TableDouble(LIVE_ROUTE))
    assert made.ask()["reason"] == "invalid_output"
    made = bench(healthy(**{BASE_MODEL: down}), TableDouble(None))
    assert made.ask()["reason"] == "unavailable"


@pytest.mark.parametrize(("says", "reason", "attempts"), REFUSALS)
def test_static_weights_answer_when_every_model_fails(
    bench: MakeBench, task: Task, says: Any, reason: str, attempts: int
) -> None:
    made = bench(healthy(**{STUDENT: says, BASE_MODEL: says}), TableDouble(LIVE_ROUTE))
    answer = made.ask()
    assert (answer["source"], answer["reason"]) == ("static", reason)
    assert answer["weights"] == task.static_weights
    assert answer["release"] is None
    assert made.metrics()[0]["failures"] == {"distilled": reason, "base": reason}


def test_retry_that_helps(bench: MakeBench) -> None:
    made = bench(student([client_error("ThrottlingException", 429), STUDENT_SAYS]), TableDouble(LIVE_ROUTE))
    assert made.ask()["source"] == "distilled"


HOUR = 3600.0


@pytest.mark.parametrize(
    ("says", "source", "seconds"),
    [
        ({STUDENT: HOUR}, "base", 100),
        ({STUDENT: HOUR, BASE_MODEL: 99.0}, "base", 199),
        ({STUDENT: HOUR, BASE_MODEL: HOUR}, "static", 200),
        ({STUDENT: client_error("ThrottlingException", 429), BASE_MODEL: HOUR}, "static", 200),
    ],
)
def test_hanging_models_never_cost_more_than_the_budget(
    bench: MakeBench, says: dict[str, Any], source: str, seconds: float
) -> None:
    """Half of it for the student, the rest for the base model, and 20 ms for writing the answer."""
    made = bench(healthy(**says), TableDouble(LIVE_ROUTE), time_budget_ms=200_020)
    answer = made.ask()
    assert (answer["source"], answer["latency_ms"]) == (source, pytest.approx(seconds * 1000))


def test_hanging_table_leaves_the_models_their_time(bench: MakeBench) -> None:
    """Two reads share two fifths of the budget."""
    table = TableDouble(LIVE_ROUTE)
    table.fails = HOUR
    made = bench(healthy(**{BASE_MODEL: 110.0}), table, time_budget_ms=200_020)
    answer = made.ask()
    assert (answer["source"], answer["latency_ms"]) == ("base", pytest.approx(190_000))
    assert len(table.reads) == 2


def test_calls_that_do_not_end_by_themselves_are_given_up(bench: MakeBench) -> None:
    """Nothing bounds the look-up of a host's name."""
    over = threading.Event()
    table = TableDouble(LIVE_ROUTE)
    table.fails = over
    made = bench(healthy(**{BASE_MODEL: over}), table, time_budget_ms=220)
    answer = made.ask()
    assert not over.is_set()
    assert (answer["source"], answer["reason"]) == ("static", "timed_out")
    over.set()


def test_function_about_to_be_stopped_answers_at_once(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    answer = made.router.handle({"query": "dog"}, ContextDouble(left=15))
    assert (answer["source"], answer["reason"]) == ("static", "no_time")
    assert made.bedrock.calls == []


def test_unexpected_error_in_one_source_falls_to_the_next(bench: MakeBench) -> None:
    made = bench(student(RuntimeError("a bug, on dog barking")), TableDouble(LIVE_ROUTE))
    answer = made.ask()
    assert (answer["source"], answer["reason"]) == ("base", "internal")
    assert made.metrics()[0]["RouterErrors"] == 1
    assert "dog barking" not in json.dumps(made.output())


def test_unexpected_error_anywhere_gives_static_weights(
    bench: MakeBench, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug, on dog barking")

    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    monkeypatch.setattr(Route, "choose", fail)
    answer = made.ask()
    assert (answer["source"], answer["reason"]) == ("static", "internal")
    assert answer["weights"] == task.static_weights
    blob = made.metrics()[0]
    assert (blob["RouterErrors"], blob["Fallback"], blob["release"]) == (1, 1, "base")
    assert "dog barking" not in json.dumps(made.output())


def test_lost_metrics_cost_no_answer(bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a metric that CloudWatch refuses")

    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    with monkeypatch.context() as patch:
        patch.setattr(Telemetry, "_document", fail)
        assert made.ask()["source"] == "distilled"
    assert made.logs()[-1]["source"] == "metrics"
    made.ask()
    assert "Latency" in made.metrics()[-1], "nothing is left over from the request before"


def test_breaker_spares_requests_an_endpoint_that_is_down(bench: MakeBench) -> None:
    made = bench(student(client_error("AccessDeniedException", 403)), TableDouble(LIVE_ROUTE))
    reasons = [made.ask(f"query {number}")["reason"] for number in range(FAILURES + 10)]
    assert reasons == ["denied"] * FAILURES + ["circuit_open"] * 10
    assert made.bedrock.asked(STUDENT) == FAILURES
    assert made.metrics()[-2]["failures"] == {"distilled": "circuit_open"}
    assert sum(log["message"] == "circuit opened" for log in made.logs()) == 1

    made.bedrock.says[STUDENT] = STUDENT_SAYS
    made.clock.time += OPEN_SECONDS
    assert made.ask("half-open")["source"] == "distilled"
    assert made.ask("closed")["source"] == "distilled"


def test_probe_that_ends_with_a_bug_is_followed_by_another(bench: MakeBench) -> None:
    made = bench(student(client_error("AccessDeniedException", 403)), TableDouble(LIVE_ROUTE))
    for number in range(FAILURES):
        made.ask(f"query {number}")
    made.clock.time += OPEN_SECONDS
    made.bedrock.says[STUDENT] = RuntimeError("a bug")
    assert made.ask("the probe")["reason"] == "internal"
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    assert made.ask("the next probe")["source"] == "distilled"


def test_refused_query_decides_nothing_about_an_open_circuit(bench: MakeBench) -> None:
    """It neither closes it for others nor keeps it open."""
    made = bench(student(client_error("AccessDeniedException", 403)), TableDouble(LIVE_ROUTE))
    for number in range(FAILURES):
        made.ask(f"query {number}")
    made.clock.time += OPEN_SECONDS
    made.bedrock.says[STUDENT] = [
        client_error("ValidationException"),
        client_error("AccessDeniedException", 403),
        STUDENT_SAYS,
    ]
    reasons = [made.ask(query)["reason"] for query in ("refused", "the next probe", "not asked")]
    assert reasons == ["refused", "denied", "circuit_open"]


def test_queries_with_invalid_output_open_no_circuit(bench: MakeBench) -> None:
    made = bench(student("I can't help with that."), TableDouble(LIVE_ROUTE))
    for number in range(3 * FAILURES):
        made.ask(f"query {number}")
    assert made.bedrock.asked(STUDENT) == 3 * FAILURES


def test_new_route_closes_breakers_of_endpoints_that_it_drops(bench: MakeBench) -> None:
    made = bench(student(client_error("AccessDeniedException", 403)), TableDouble(LIVE_ROUTE))
    for number in range(FAILURES):
        made.ask(f"query {number}")
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    for route in (Route(4, ()), Route(5, LIVE_ROUTE.shares)):
        made.table.item = route.to_item()
        made.clock.time += 100.0
        answer = made.ask()
    assert answer["source"] == "distilled"


def http(body: str) -> dict[str, Any]:
    return {"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": body}


def test_http_answer(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    answer = made.router.handle(http('{"query": "dog barking"}'), ContextDouble())
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"] == "application/json"
    assert json.loads(answer["body"])["intent"] == "audio"


@pytest.mark.parametrize(
    "body", ["", "{", "{}", '{"query": 1}', '{"query": " "}', json.dumps({"query": "d" * 513})]
)
def test_http_mistake_is_a_400(bench: MakeBench, body: str) -> None:
    answer = bench(healthy(), TableDouble(LIVE_ROUTE)).router.handle(http(body))
    assert answer["statusCode"] == 400
    assert set(json.loads(answer["body"])) == {"error", "message"}
