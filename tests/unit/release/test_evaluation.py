"""The release's judgement, on real students that the stand-in trains from the sample data."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evaluation.handler
from evaluation.handler import CONCURRENCY, MOST_FAILED_CALLS, Evaluation, evaluate, spread
from evaluation.scores import Answer, Gate, Scores, report, score
from shared.conversation import Example
from shared.releases import EVALUATING, SUPERSEDED
from shared.stages import StageResult
from shared.task import Task
from tests.unit.release.conftest import A, Proxy, World

DATA = Path(__file__).parents[3] / "data"
ASKED = 40
GATE = Gate(
    minimum_valid_output=0.98,
    minimum_dominant_accuracy=0.8,
    maximum_mean_absolute_error=0.15,
    minimum_examples=ASKED,
)
LAX = replace(GATE, minimum_dominant_accuracy=0.1, maximum_mean_absolute_error=0.5)
ROWS = (DATA / "training.jsonl").read_text().splitlines()


def strict(text: str | bytes) -> Any:
    """Strict JSON: what a reader other than Python's takes."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


class Court:
    """A candidate A with its endpoint, and the hold-out set in S3."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runtime = world.server.client("bedrock-runtime", attempts=1)
        self.task = Task.load(DATA.parent / "task")
        self.hold_out((DATA / "holdout.jsonl").read_text().splitlines()[:ASKED])

    def hold_out(self, rows: Sequence[str]) -> None:
        body = "\n".join(rows).encode()
        self.world.s3.put_object(Bucket=self.world.bucket, Key="datasets/d/holdout.jsonl", Body=body)

    def candidate(self, rows: Sequence[str] = ROWS[:200]) -> None:
        """A few rows make a student that knows the form, all of them one that knows the task."""
        model = self.world.train(A, "\n".join(rows).encode())
        self.world.begin(A, model_arn=model, endpoint=self.world.deploy(A, model))

    def evaluation(self, **changes: Any) -> Evaluation:
        return Evaluation(
            runtime=changes.get("runtime", self.runtime),
            s3=self.world.s3,
            task=self.task,
            bucket=self.world.bucket,
            holdout_key="datasets/d/holdout.jsonl",
            gate=changes.get("gate", LAX),
        )

    def judge(self, **changes: Any) -> StageResult:
        return evaluate(A, self.world.releases, self.evaluation(**changes))

    def report(self) -> dict[str, Any]:
        key = f"releases/{A}/evaluation.json"
        found: dict[str, Any] = strict(
            self.world.s3.get_object(Bucket=self.world.bucket, Key=key)["Body"].read()
        )
        return found


@pytest.fixture
def court(world: World) -> Court:
    return Court(world)


def test_good_candidate_passes_and_its_report_is_kept(world: World, court: Court) -> None:
    court.candidate(ROWS)
    result = court.judge(gate=GATE)
    assert result["outcome"] == "done", result["message"]
    assert result["message"].startswith(f"{ASKED} queries: valid output 100.0%, dominant label ")
    kept = court.report()
    assert (kept["release"], kept["passed"], kept["reasons"]) == (A, True, [])
    assert kept["model"] == world.release(A).model_arn
    assert kept["scores"]["examples"] == ASKED
    assert kept["scores"]["output_tokens"] <= 11
    assert kept["scores"]["input_tokens"] > 10
    assert 0 < kept["scores"]["latency_p50_ms"] <= kept["scores"]["latency_p95_ms"]
    assert len(kept["worst"]) == 20
    item = world.releases._item(f"release@{A}")
    assert item is not None
    assert strict(item["scores"]) == kept["scores"]
    assert item["report"] == f"s3://{world.bucket}/releases/{A}/evaluation.json"
    assert world.release(A).state == EVALUATING


def test_candidate_is_asked_as_the_router_asks(world: World, court: Court) -> None:
    court.candidate()
    court.judge()
    call = world.server.calls("Converse")[0]["parameters"]
    assert call["modelId"] == world.release(A).endpoint
    assert call["system"] == [{"text": court.task.student_prompt}]
    assert call["inferenceConfig"] == {"temperature": 0.0, "maxTokens": 16}
    assert len(call["messages"]) == 1


def test_student_of_bad_data_is_refused(court: Court) -> None:
    """Each query has its neighbour's label."""
    rows = [json.loads(line) for line in ROWS[:600]]
    answers = [row["messages"][1] for row in rows]
    for row, answer in zip(rows, [*answers[1:], answers[0]], strict=True):
        row["messages"][1] = answer
    court.candidate(list(map(json.dumps, rows)))
    result = court.judge(gate=GATE)
    assert result["outcome"] == "failed"
    assert "refused by the gate: dominant-label accuracy is 0." in result["message"]
    assert "mean absolute error" in result["message"]
    assert court.report()["passed"] is False


@pytest.mark.parametrize("kind", ["output_prose", "output_not_numbers", "output_empty", "output_too_few"])
def test_candidate_that_writes_no_weights_is_refused(world: World, court: Court, kind: str) -> None:
    court.candidate()
    world.server.fault(kind, count=None)
    result = court.judge()
    assert result["outcome"] == "failed"
    assert "valid output is 0, threshold 0.98" in result["message"]
    assert "mean absolute error is nan" in result["message"]
    assert ". First problem: " in result["message"]
    kept = court.report()
    assert kept["scores"]["mean_absolute_error"] is None
    assert kept["scores"]["latency_p95_ms"] is None
    assert [answer["weights"] for answer in kept["worst"]] == [None] * 20
    # It answered, so that all were asked: only calls that fail end it early.
    assert world.calls("Converse") == ASKED


def test_failing_endpoint_ends_the_evaluation_after_twenty_calls(world: World, court: Court) -> None:
    court.candidate()
    world.server.fault("denied", operation="Converse", count=None)
    result = court.judge()
    assert "First problem: AccessDeniedException" in result["message"]
    assert world.calls("Converse") == MOST_FAILED_CALLS == 20
    kept = court.report()
    assert kept["scores"]["examples"] == ASKED
    assert kept["worst"][-1]["problem"].startswith("AccessDeniedException")


def test_endpoint_that_fails_halfway_is_not_asked_to_the_end(world: World, court: Court) -> None:
    court.candidate()
    asked = []

    def converse(**request: Any) -> Any:
        asked.append(request)
        model = request["modelId"] if len(asked) <= 20 else "amazon.none"
        return court.runtime.converse(**{**request, "modelId": model})

    result = court.judge(runtime=Proxy(court.runtime, converse=converse))
    assert "valid output is 0.5," in result["message"]
    assert len(asked) == 40
    assert court.report()["scores"]["examples"] == ASKED


def test_few_failing_calls_count_as_wrong_and_end_nothing(world: World, court: Court) -> None:
    court.candidate()
    world.server.fault("unavailable", operation="Converse", count=2)
    assert f"valid output is {38 / 40:.3g}, threshold 0.98" in court.judge()["message"]
    assert world.calls("Converse") == ASKED


def test_lost_connection_is_an_answer_that_failed(world: World, court: Court) -> None:
    court.candidate()
    world.server.fault("lost_response", operation="Converse", count=ASKED)
    result = court.judge()
    assert result["outcome"] == "failed"
    assert world.calls("Converse") == 20


def test_evaluation_that_died_is_taken_again_from_its_start(world: World, court: Court) -> None:
    court.candidate()

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    evaluation = replace(court.evaluation(), s3=Proxy(world.s3, put_object=die))
    with pytest.raises(KeyboardInterrupt):
        evaluate(A, world.releases, evaluation)
    assert court.judge()["outcome"] == "done"
    assert court.judge()["outcome"] == "done"
    assert court.report()["passed"] is True


def test_superseded_candidate_is_not_asked(world: World, court: Court) -> None:
    world.begin(A, endpoint="arn:a")
    world.releases.transition(A, SUPERSEDED, "by another")
    assert court.judge()["outcome"] == "failed"
    assert world.calls("Converse") == 0


def test_unknown_release_is_not_asked(world: World, court: Court) -> None:
    assert court.judge()["outcome"] == "failed"
    assert world.releases.get(A) is None


def test_hold_out_that_is_too_small_is_refused(court: Court) -> None:
    court.candidate()
    court.hold_out((DATA / "holdout.jsonl").read_text().splitlines()[: ASKED - 1])
    assert "refused by the gate: examples is 39, threshold 40" in court.judge()["message"]


def test_empty_hold_out_is_refused_and_not_divided_by(world: World, court: Court) -> None:
    world.begin(A, endpoint="arn:a")
    court.hold_out([])
    assert "examples is 0" in court.judge()["message"]
    assert court.report()["worst"] == []


def test_large_hold_out_is_asked_in_part_spread_evenly() -> None:
    """20,000 rows are allowed, and a function has 15 minutes."""
    holdout = [Example(str(number), {"x": 1.0}) for number in range(20_000)]
    asked = spread(holdout, 2_000)
    assert [example.query for example in asked[:3]] == ["0", "10", "20"]
    assert (len(asked), asked[-1].query) == (2_000, "19990")
    assert spread(holdout[:2_000], 2_000) == holdout[:2_000]
    assert len({example.query for example in spread(holdout[:2_999], 2_000)}) == 2_000


def test_handler_reads_its_gate_and_waits_out_a_throttle(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.begin(A)
    for name, value in {
        "DATA_BUCKET": world.bucket,
        "HOLDOUT_KEY": "datasets/d/holdout.jsonl",
        "GATE": json.dumps(GATE.__dict__),
        "TABLE_NAME": "releases",
    }.items():
        monkeypatch.setenv(name, value)
    slow = Proxy(world.s3, get_object=lambda **_: world.bedrock.get_custom_model(modelIdentifier="m"))
    monkeypatch.setattr(evaluation.handler, "client", lambda _: slow)
    monkeypatch.setattr(evaluation.handler, "table", lambda _: world.releases._table)
    assert Evaluation.from_environment(os.environ).gate == GATE
    world.server.fault("throttled", operation="GetCustomModel")
    assert evaluation.handler.handler({"release": A}, None)["outcome"] == "waiting"


PERFECT = Scores(
    examples=100,
    valid_output=1.0,
    dominant_accuracy=1.0,
    within_0_05=1.0,
    within_0_10=1.0,
    mean_absolute_error=0.0,
    latency_p50_ms=1.0,
    latency_p95_ms=1.0,
    input_tokens=40.0,
    output_tokens=11.0,
)


def scoring(field: str, value: float) -> Scores:
    """Perfect scores but for one."""
    changes: dict[str, Any] = {field: value}
    return replace(PERFECT, **changes)


@pytest.mark.parametrize(
    ("field", "at", "beyond", "name"),
    [
        ("examples", 40, 39, "examples"),
        ("valid_output", 0.98, 0.979, "valid output"),
        ("dominant_accuracy", 0.8, 0.799, "dominant-label accuracy"),
        ("mean_absolute_error", 0.15, 0.151, "mean absolute error"),
    ],
)
def test_each_threshold_may_be_reached_but_not_missed(
    field: str, at: float, beyond: float, name: str
) -> None:
    assert GATE.reasons_against(scoring(field, at)) == []
    (reason,) = GATE.reasons_against(scoring(field, beyond))
    assert reason.startswith(f"{name} is ")


@pytest.mark.parametrize("field", ["valid_output", "dominant_accuracy", "mean_absolute_error"])
def test_score_that_is_no_number_never_passes(field: str) -> None:
    assert len(GATE.reasons_against(scoring(field, math.nan))) == 1


LABELS = ("visual", "audio", "transcription", "metadata")


def weights(*percents: float) -> dict[str, float]:
    return {label: percent / 100 for label, percent in zip(LABELS, percents, strict=True)}


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ((50, 50, 0, 0), (60, 40, 0, 0), 1.0),
        ((50, 50, 0, 0), (40, 60, 0, 0), 1.0),
        ((50, 50, 0, 0), (30, 30, 40, 0), 0.0),
        ((25, 25, 25, 25), (0, 0, 0, 100), 1.0),
        ((60, 40, 0, 0), (50, 50, 0, 0), 1.0),
        ((40, 60, 0, 0), (50, 50, 0, 0), 0.0),
    ],
)
def test_reference_with_ties_is_met_by_any_of_them(
    reference: tuple[float, ...], answer: tuple[float, ...], right: float
) -> None:
    task = Task.load(DATA.parent / "task")
    assert score([Answer("q", weights(*reference), weights(*answer))], task).dominant_accuracy == right


def test_scores_count_invalid_answers_as_wrong_and_average_the_others() -> None:
    task = Task.load(DATA.parent / "task")
    reference = weights(80, 20, 0, 0)
    answers = [
        Answer("exact", reference, reference, latency_ms=100, input_tokens=40, output_tokens=10),
        Answer("near", reference, weights(75, 25, 0, 0), latency_ms=200, input_tokens=60, output_tokens=12),
        Answer("far", reference, weights(70, 30, 0, 0), latency_ms=300, input_tokens=50, output_tokens=11),
        Answer("invalid", reference, None, "no weights", latency_ms=9000, output_tokens=5),
    ]
    scores = score(answers, task)
    assert (scores.examples, scores.valid_output, scores.dominant_accuracy) == (4, 0.75, 0.75)
    assert (scores.within_0_05, scores.within_0_10) == (0.5, 0.75)
    assert scores.mean_absolute_error == pytest.approx((0 + 0.025 + 0.05) / 3)
    assert (scores.latency_p50_ms, scores.latency_p95_ms) == (200, 300)
    assert (scores.input_tokens, scores.output_tokens) == (50, 11)


def test_report_lists_the_worst_answers_first_and_nothing_but_json() -> None:
    task = Task.load(DATA.parent / "task")
    reference = weights(100, 0, 0, 0)
    answers = [
        Answer("near", reference, weights(90, 10, 0, 0)),
        Answer("none", reference, None, "no weights"),
        Answer("far", reference, weights(10, 90, 0, 0)),
    ]
    made = report(score(answers, task), GATE, answers, digest=A, model_arn="arn:m", worst=2)
    assert [answer["query"] for answer in made["worst"]] == ["none", "far"]
    nothing = report(score(answers[1:2], task), GATE, answers[1:2], digest=A, model_arn="arn:m")
    assert strict(json.dumps(nothing, allow_nan=False))["scores"]["mean_absolute_error"] is None


def test_few_are_asked_at_a_time() -> None:
    """2,000 requests a minute are an endpoint's limit, and live traffic shares it."""
    assert CONCURRENCY <= 8
