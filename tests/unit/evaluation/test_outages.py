"""Questions that could not be asked: no verdict on a candidate, and no help for a bad one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from cdk_distilled_router.props.release import EvaluationProps
from distilled_router.task.robustness import Robustness
from evaluation.ask_models import SHORT_SECONDS, ask, ask_shard
from evaluation.contenders import Contender
from evaluation.metrics import Question
from evaluation.prepare_evaluation import prepare
from tests.unit.evaluation.court import ASKED, DATA, GATE, LAX, ROWS, Court
from tests.unit.release_world import A, B, Proxy, World

MICRO = "us.amazon.nova-micro-v1:0"
# Step Functions quotas: events in an execution's history, of which one round of a step adds about eleven.
EVENTS, ROUND_EVENTS = 25_000, 11
# What a failed call may raise, apart from the errors of Bedrock that the stand-in writes.
NETWORK: dict[str, Callable[[], Exception]] = {
    "reset": lambda: EndpointConnectionError(endpoint_url="https://bedrock"),
    "timeout": lambda: ReadTimeoutError(endpoint_url="https://bedrock"),
    "unknown": lambda: ClientError({"Error": {"Code": "New"}, "ResponseMetadata": {}}, "Converse"),  # type: ignore[typeddict-item]  # a short response
}
PASSING = ("throttled", "failed", "unavailable", "not_ready", "over_quota", "model_error", "model_timeout")
LASTING = ("denied", "not_found")


def shifted(rows: int = 600) -> list[str]:
    """Return rows in which each query has the next query's answer: a student of them is bad."""
    found = [json.loads(line) for line in ROWS[:rows]]
    answers = [row["messages"][1] for row in found]
    for row, given in zip(found, [*answers[1:], answers[0]], strict=True):
        row["messages"][1] = given
    return list(map(json.dumps, found))


def order(world: World, kind: str, endpoint: str | None = None, count: int | None = None) -> None:
    world.server.fault(kind, operation="Converse", count=count, modelId=endpoint)


def few(court: Court) -> None:
    """Hold out four questions, so that many rounds take little time."""
    court.hold_out((DATA / "holdout.jsonl").read_text().splitlines()[:4])


def asked(world: World, endpoint: str) -> Counter[str]:
    """Return the number of an endpoint's answers by query."""
    found: Counter[str] = Counter()
    for call in world.server.calls("Converse"):
        if call["parameters"]["modelId"] == endpoint and not call.get("error"):
            found[call["parameters"]["messages"][0]["content"][0]["text"]] += 1
    return found


# What serves could not be asked


def test_bad_candidate_does_not_pass_because_the_live_release_was_throttled(
    world: World, court: Court
) -> None:
    court.go_live()
    court.candidate(shifted())
    order(world, "throttled", world.release(B).endpoint, count=20)
    result = court.evaluate()
    assert result["outcome"] == "failed"
    first, *findings = result["message"].splitlines()
    assert first.startswith(f"refused by the gate: {len(findings)} of ")
    assert findings[0].startswith("- Dominant label right for ")
    assert court.report()["comparisons"]["dominant_accuracy"]["rows"] == ASKED


def test_live_release_that_is_throttled_for_long_is_no_verdict(world: World, court: Court) -> None:
    court.go_live()
    court.candidate(shifted())
    few(court)
    order(world, "throttled", world.release(B).endpoint)
    result = court.evaluate(outage_seconds=3_600)
    assert result["outcome"] == "failed"
    assert result["message"] == (
        'not evaluated. Next: remove the cause, then raise release.attempt; see "Not evaluated" in '
        "docs/runbook.md.\n"
        "- The candidate and the live release could be asked 0 of 4 hold-out questions; at least 4 wanted: 4 "
        "throttled (ThrottlingException: Too many requests, please wait before trying again.).\n"
        "Warning: holdout: no two labels have 10 hold-out queries each, so the balanced accuracy is unknown"
    )
    report = court.report()
    assert (report["passed"], report["decided"]) == (False, False)
    assert 3_600 <= court.now < 3_700
    # What the candidate answered was paid for, and is asked once.
    assert set(asked(world, world.release(A).endpoint).values()) == {1}
    assert "asking again until 01:00 UTC" in court.waits[0]["message"]
    assert f"live release {B} could not be asked 4 of 4 questions" in court.waits[0]["message"]


def test_questions_that_only_one_of_both_could_be_asked_are_left_out(world: World, court: Court) -> None:
    court.go_live()
    court.candidate(ROWS)
    endpoint = world.release(B).endpoint

    def converse(**request: Any) -> Any:
        # These two queries always fail for the live release.
        if request["modelId"] == endpoint and request["messages"][0]["content"][0]["text"] in lost:
            raise EndpointConnectionError(endpoint_url="https://bedrock")
        return court.runtime.converse(**request)

    lost = _queries()[:2]
    result = court.evaluate(
        gate=replace(GATE, minimum_examples=30), runtime=Proxy(court.runtime, converse=converse)
    )
    assert result["outcome"] == "done", result["message"]
    report = court.report()
    assert report["comparisons"]["dominant_accuracy"]["rows"] == ASKED - 2
    assert court.metrics()["dominant_accuracy"]["rows"] == ASKED
    assert report["contenders"]["live"]["unasked"]["count"] == 2
    # So few are not worth more than a short wait.
    assert SHORT_SECONDS <= court.now < SHORT_SECONDS + 60


def test_without_a_comparison_the_live_release_need_not_be_asked(world: World, court: Court) -> None:
    court.go_live()
    court.candidate(ROWS)
    order(world, "throttled", world.release(B).endpoint)
    assert court.evaluate(gate=replace(GATE, not_worse=False))["outcome"] == "done"
    assert court.metrics("live")["dominant_accuracy"] is None
    assert court.now < SHORT_SECONDS + 60


# An outage


@pytest.mark.parametrize("kind", [*PASSING, *LASTING, "lost_response", "validation"])
def test_outage_that_passes_costs_time_and_nothing_else(world: World, court: Court, kind: str) -> None:
    """With `validation`, the endpoint refuses every query."""
    court.candidate()
    order(world, kind, count=40)
    result = court.evaluate()
    assert result["outcome"] == "done", result["message"]
    valid = court.metrics()["valid_output"]
    assert valid | {"low": 0} == {"value": 1.0, "low": 0, "high": 1.0, "rows": ASKED}
    assert 0 < court.now <= 120
    # 20 failed calls in a row end a round, and nothing that was answered is asked again.
    assert world.calls("Converse") == ASKED + 40
    assert court.report()["contenders"]["candidate"]["unasked"] == {"questions": 40, "count": 0, "why": ""}


def test_outage_in_the_middle_keeps_what_was_answered(world: World, court: Court) -> None:
    court.candidate()
    world.server.fault("unavailable", operation="Converse", skip=25, count=10)
    assert court.evaluate()["outcome"] == "done"
    assert world.calls("Converse") == ASKED + 10
    assert court.metrics()["valid_output"]["rows"] == ASKED


@pytest.mark.parametrize("kind", [*PASSING, *LASTING, "validation", *NETWORK])
def test_outage_that_stays_ends_with_its_reason(world: World, court: Court, kind: str) -> None:
    court.candidate()
    few(court)
    runtime = court.runtime
    if kind in NETWORK:
        runtime = Proxy(court.runtime, converse=lambda **_: _raise(NETWORK[kind]()))
    else:
        order(world, kind)
    result = court.evaluate(runtime=runtime, outage_seconds=1_800)
    assert result["outcome"] == "failed"
    assert result["message"].startswith("not evaluated. Next: ")
    assert "\n- The candidate could be asked 0 of 4 hold-out questions; " in result["message"]
    assert "nan" not in result["message"].lower()
    # More than a few minutes are only for what passes by itself.
    limit = SHORT_SECONDS if kind in {*LASTING, "validation"} else 1_800
    assert limit <= court.now < limit + 60
    assert court.report()["worst"] == []


def _raise(error: Exception) -> None:
    raise error


def test_query_that_bedrock_refuses_is_answered_wrongly(world: World, court: Court) -> None:
    """ValidationException for one query says nothing about the others, and repeating it changes nothing."""
    court.candidate(ROWS)
    order(world, "validation", count=3)
    result = court.evaluate(gate=GATE)
    assert "\n- Valid output for 92.5% of 40 queries; at least 98.0% wanted." in result["message"]
    assert world.calls("Converse") == ASKED
    assert court.now == 0
    assert court.report()["worst"][0]["problem"].startswith("ValidationException")


@pytest.mark.parametrize(("part", "calls"), [(10, 10), (100, 20)])
def test_failed_call_lets_no_invocation_ask_longer(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch, part: int, calls: int
) -> None:
    """Each further 20 questions may take minutes, and the function's time is bounded."""
    monkeypatch.setattr("evaluation.ask_models.PART_QUESTIONS", part)
    monkeypatch.setattr("evaluation.ask_models.ASK_SECONDS", -1)
    court.candidate()
    order(world, "throttled", count=1)
    prepare(A, world.releases, court.evaluation())
    result = ask_shard(A, "00000.jsonl", world.releases, court.evaluation())
    assert world.calls("Converse") == calls
    # What was not tried was not throttled.
    left = ASKED - calls
    assert f"asked {left + 1} of 40 questions: {left} not asked, 1 throttled" in result["message"]
    assert court.evaluate()["outcome"] == "done"
    assert court.metrics()["valid_output"]["rows"] == ASKED


def test_model_that_fails_twenty_times_in_a_row_is_left_for_this_round(world: World, court: Court) -> None:
    court.candidate()
    order(world, "throttled")
    prepare(A, world.releases, court.evaluation())
    result = ask_shard(A, "00000.jsonl", world.releases, court.evaluation())
    assert world.calls("Converse") == 20
    assert "could not be asked 40 of 40 questions: 40 throttled" in result["message"]


@pytest.mark.parametrize(("examples", "questions", "least"), [(40, 40, 40), (40, 100, 95), (100, 50, 50)])
def test_as_many_questions_must_be_asked_as_the_gate_has_to_score(
    examples: int, questions: int, least: int
) -> None:
    assert replace(GATE, minimum_examples=examples).minimum_asked(questions) == least


def test_base_model_that_can_not_be_asked_fails_no_release(world: World, court: Court) -> None:
    court.candidate(ROWS)
    order(world, "throttled", MICRO)
    assert court.evaluate(gate=GATE, base_model=MICRO)["outcome"] == "done"
    assert court.report()["contenders"]["base"]["unasked"]["why"].startswith("40 throttled (Throttling")
    assert court.now < SHORT_SECONDS + 60


def test_robustness_slice_counts_what_could_be_asked(world: World, court: Court) -> None:
    court.candidate(ROWS)
    loud = {line.upper() for line in _queries()[:5]}

    def converse(**request: Any) -> Any:
        if request["messages"][0]["content"][0]["text"] in loud:
            raise ReadTimeoutError(endpoint_url="https://bedrock")
        return court.runtime.converse(**request)

    robustness = Robustness.load(court.task, DATA.parent / "task")
    result = court.evaluate(
        gate=GATE,
        runtime=Proxy(court.runtime, converse=converse),
        robustness=robustness,
        slice_queries=ASKED,
    )
    assert result["outcome"] == "done", result["message"]
    found = court.report()["contenders"]["candidate"]["slices"]["upper_case"]
    assert found["rows"] == found["metrics"]["valid_output"]["rows"] == ASKED - 5
    assert found["metrics"]["consistency"]["rows"] == ASKED - 5


def _queries() -> list[str]:
    rows = (json.loads(line) for line in (DATA / "holdout.jsonl").read_text().splitlines()[:ASKED])
    return [row["messages"][0]["content"][0]["text"] for row in rows]


# Time


def test_waiting_ends_long_before_the_history_of_the_execution_is_full(world: World, court: Court) -> None:
    most = EvaluationProps.model_fields["outage_minutes"].metadata
    minutes = max(limit.le for limit in most if hasattr(limit, "le"))
    court.candidate()
    few(court)
    order(world, "throttled")
    court.evaluate(outage_seconds=minutes * 60)
    assert minutes * 60 <= court.now < minutes * 60 + 60
    assert len(court.waits) * ROUND_EVENTS < EVENTS / 10


def test_many_shards_do_not_wait_one_after_another(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.questions.SHARD_QUESTIONS", 10)
    court.candidate()
    order(world, "throttled")
    court.evaluate(outage_seconds=600)
    assert len(court.keys("questions/")) == 4
    assert 600 <= court.now < 660


def test_shard_after_an_outage_has_its_own_time(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage that passed is over: the next one is waited out, too."""
    monkeypatch.setattr("evaluation.questions.SHARD_QUESTIONS", 20)
    court.candidate(ROWS)
    order(world, "throttled", count=20)
    world.server.fault("unavailable", operation="Converse", skip=20, count=60)
    assert court.evaluate(gate=GATE, outage_seconds=100)["outcome"] == "done"
    assert court.now == 120


def test_few_failures_leave_later_shards_their_time(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.questions.SHARD_QUESTIONS", 20)
    court.candidate(ROWS)
    lost, calls = _queries()[0].strip(), Counter[str]()

    def converse(**request: Any) -> Any:
        query = request["messages"][0]["content"][0]["text"]
        calls[query] += 1
        # One query always fails, and in the second shard all fail at first.
        if query == lost or (calls.total() > 40 and calls[query] <= 2):
            raise EndpointConnectionError(endpoint_url="https://bedrock")
        return court.runtime.converse(**request)

    runtime, gate = Proxy(court.runtime, converse=converse), replace(GATE, minimum_examples=30)
    assert court.evaluate(gate=gate, runtime=runtime, outage_seconds=310)["outcome"] == "done"
    assert court.metrics()["valid_output"]["rows"] == ASKED - 1
    assert court.now > SHORT_SECONDS + 30


def test_release_that_ends_while_it_waits_is_asked_no_more(world: World, court: Court) -> None:
    court.candidate()
    order(world, "throttled")

    def late() -> float:
        world.releases.transition(A, "superseded", "by another")
        return 0.0

    assert court.evaluate(now=late)["message"] == f"release {A} has already ended"


# Latency


@pytest.fixture
def retried() -> Callable[[int], Any]:
    """A reply after some retries of botocore."""

    def reply(retries: int) -> Any:
        def converse(**_: Any) -> Any:
            return {
                "output": {"message": {"role": "assistant", "content": [{"text": "10 80 0 10"}]}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 40, "outputTokens": 11, "totalTokens": 51},
                "metrics": {"latencyMs": 4_321},
                "ResponseMetadata": {"RetryAttempts": retries},
            }

        return converse

    return reply


@pytest.mark.parametrize(("retries", "is_bedrocks"), [(0, False), (1, True)])
def test_pauses_before_a_repeated_call_are_not_the_models_latency(
    court: Court, retried: Callable[[int], Any], retries: int, is_bedrocks: bool
) -> None:
    runtime = Proxy(court.runtime, converse=retried(retries))
    question = Question("1", "holdout", "red car", None)
    answer = ask(Contender(name="candidate", title=""), question, runtime, court.task)
    assert answer.was_given
    assert (answer.latency_ms == 4_321) is is_bedrocks


# The report


def test_report_tells_what_could_not_be_asked_and_why(world: World, court: Court) -> None:
    court.go_live()
    court.candidate(ROWS)
    few(court)
    order(world, "throttled", world.release(B).endpoint)
    court.evaluate(gate=LAX, outage_seconds=60)
    (key,) = court.keys("report.html")
    page = world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read().decode()
    assert "<h1>Not evaluated</h1>" in page
    assert "Could not be asked" in page
    assert "4 of 4 questions: 4 throttled (ThrottlingException" in page
