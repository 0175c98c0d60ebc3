"""Scores, their confidence intervals, and the gate's checks."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.release.gate import Gate
from distilled_router.task.task import Task
from evaluation.attempt import read, row
from evaluation.contenders import CANDIDATE, STATIC, Contender
from evaluation.gate import PAIRED, checks
from evaluation.intervals import UNKNOWN, Estimate, means, quantile
from evaluation.metrics import METRICS, Answer, Question, divergence, rubric, shown, values
from evaluation.score_and_gate import Scored, differences, report_of, unasked_of_both
from tests import real_data

TASK = Task.load()
LABELS = TASK.labels
GATE = Gate(
    minimum_valid_output=0.98,
    minimum_dominant_accuracy=0.8,
    maximum_mean_absolute_error=0.15,
    minimum_examples=40,
)


def weights(*percents: float) -> dict[str, float]:
    return {label: percent / 100 for label, percent in zip(LABELS, percents, strict=True)}


def exactly(value: float) -> Estimate:
    return Estimate(value, value, value, 100)


PERFECT = {name: exactly(1.0) for name in METRICS} | {
    "mean_absolute_error": exactly(0.0),
    "latency_p50_ms": exactly(300.0),
    "latency_p95_ms": exactly(400.0),
    "cost_per_1000_usd": exactly(0.003),
}


def reasons(
    changes: dict[str, Estimate] | None = None,
    *,
    gate: Gate = GATE,
    live: dict[str, Estimate] | None = None,
    compared: dict[str, Estimate] | None = None,
    questions: int = 100,
) -> list[str]:
    found = checks(gate, {**PERFECT, **(changes or {})}, live, compared or {}, questions)
    assert all(check.ok == (not check.reason) for check in found)
    return [check.reason for check in found if not check.ok]


# Metrics


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ((50, 50, 0, 0), (60, 40, 0, 0), True),
        ((50, 50, 0, 0), (40, 60, 0, 0), True),
        ((50, 50, 0, 0), (30, 30, 40, 0), False),
        ((25, 25, 25, 25), (0, 0, 0, 100), True),
        ((60, 40, 0, 0), (50, 50, 0, 0), True),
        ((40, 60, 0, 0), (50, 50, 0, 0), False),
    ],
)
def test_reference_with_ties_is_met_by_any_of_them(
    reference: Sequence[float], answer: Sequence[float], right: bool
) -> None:
    assert TASK.is_dominant_right(weights(*reference), weights(*answer)) is right


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        ((80, 20, 0, 0), 5),
        ((75, 25, 0, 0), 5),
        ((70, 30, 0, 0), 4),
        ((60, 40, 0, 0), 3),
        ((50, 50, 0, 0), 2),  # the mean error is 0.15
        ((50, 20, 20, 10), 2),
        ((49, 51, 0, 0), 1),  # one weight is 0.31 off
        (None, 1),
    ],
)
def test_rubric_is_the_published_one_on_weights_alone(answer: Sequence[float] | None, points: int) -> None:
    assert rubric(weights(80, 20, 0, 0), weights(*answer) if answer else None, TASK) == points


def test_rubric_gives_static_weights_what_was_computed_from_the_published_labels() -> None:
    """The published hold-out set gives 2.08 for the fallback; it is a part of these rows."""
    references: list[Any] = [found["weights"] for found in real_data.required("teacher_labels")]
    points = [rubric(reference, weights(40, 20, 20, 20), TASK) for reference in references]
    assert sum(points) / len(points) == pytest.approx(2.08, abs=0.05)


@given(st.lists(st.integers(0, 100), min_size=4, max_size=4).filter(sum))
def test_divergence_is_finite_and_zero_for_the_reference_alone(parts: list[int]) -> None:
    reference = {label: part / sum(parts) for label, part in zip(LABELS, parts, strict=True)}
    assert divergence(reference, reference) == 0
    for label in LABELS:
        only = {other: float(other == label) for other in LABELS}
        assert 0 <= divergence(reference, only) < 6
        assert (divergence(reference, only) > 1e-9) is (only != reference)


def test_answer_without_weights_is_wrong_and_has_no_errors() -> None:
    question = Question("1", "holdout", "red car", weights(80, 20, 0, 0))
    found = values(question, Answer("1", None, "prose", 200.0, 40, 9), TASK, lambda _: 0.5)
    assert {name for name, value in found.items() if value == 0} == {
        *("valid_output", "exact_match", "within_0_05", "within_0_10", "dominant_accuracy")
    }
    assert (found["mean_absolute_error"], found["kl_divergence"], found["rubric"]) == (None, None, 1)
    # Invalid answers are paid for as well.
    assert (found["output_tokens"], found["cost_per_1000_usd"]) == (9, 500)


def test_call_that_failed_has_no_tokens_and_no_cost() -> None:
    question = Question("1", "holdout", "red car", weights(80, 20, 0, 0))
    found = values(question, Answer("1", None, "denied"), TASK, lambda _: 0.5)
    assert (found["valid_output"], found["input_tokens"], found["cost_per_1000_usd"]) == (0, None, None)


def test_every_score_is_explained() -> None:
    assert set(METRICS) < set(shown())
    assert all(found["meaning"] for found in shown().values())


# Intervals


def test_interval_of_a_share_is_the_binomial_one() -> None:
    found = means({"right": [1.0] * 80 + [0.0] * 20})["right"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 100)
    assert (found.value, found.rows) == (0.8, 100)
    assert found.low == pytest.approx(0.8 - half, abs=0.015)
    assert found.high == pytest.approx(0.8 + half, abs=0.015)


def test_interval_of_many_rows_is_as_wide_as_it_must_be() -> None:
    chance = random.Random(7)
    many = [chance.random() for _ in range(30_000)]
    found = means({"value": many})["value"]
    half = 1.96 * math.sqrt(1 / 12 / 30_000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance, held = random.Random(3), 0
    for _ in range(200):
        found = means({"value": [chance.gauss(5, 2) for _ in range(60)]}, resamples=200)["value"]
        held += found.low <= 5 <= found.high
    assert 180 <= held <= 198


def test_intervals_are_the_same_every_time() -> None:
    rows: dict[str, list[float | None]] = {"value": [0.1, None, 0.7, 0.4], "none": [None] * 4}
    assert means(rows) == means(rows)
    assert means(rows)["none"] == UNKNOWN
    assert means(rows)["value"].rows == 3
    assert means({}) == {}
    assert means({"value": []}) == {"value": UNKNOWN}


@pytest.mark.parametrize("part", [0.5, 0.95, 0.99])
def test_quantile_is_a_value_within_its_interval(part: float) -> None:
    times = [float(number) for number in range(1, 1_001)]
    found = quantile(times, part)
    assert found.value == 1_000 * part
    half = 1.96 * math.sqrt(1_000 * part * (1 - part))
    assert found.low == pytest.approx(found.value - half, abs=1)
    assert found.high == pytest.approx(found.value + half, abs=1)
    assert quantile([], part) == UNKNOWN
    assert quantile([7.0], part) == Estimate(7.0, 7.0, 7.0, 1)


# The gate


@pytest.mark.parametrize(
    ("field", "at", "beyond", "name"),
    [
        ("valid_output", 0.98, 0.979, "valid output"),
        ("dominant_accuracy", 0.8, 0.799, "dominant-label accuracy"),
        ("mean_absolute_error", 0.15, 0.151, "mean absolute error"),
        ("latency_p95_ms", 900, 901, "latency at p95 (ms)"),
        ("cost_per_1000_usd", 0.01, 0.011, "cost of 1,000 queries (USD)"),
    ],
)
def test_each_threshold_may_be_reached_but_not_missed(
    field: str, at: float, beyond: float, name: str
) -> None:
    gate = replace(GATE, maximum_latency_p95_ms=900, maximum_cost_per_1000_usd=0.01)
    assert reasons({field: exactly(at)}, gate=gate) == []
    (reason,) = reasons({field: exactly(beyond)}, gate=gate)
    assert reason.startswith(f"{name} is {beyond:.3g}, threshold ")
    # A mean of no values, or an unknown price, never passes.
    (reason,) = reasons({field: UNKNOWN}, gate=gate)
    assert reason.startswith(f"{name} is unknown, threshold ")


def test_each_check_says_which_way_its_limit_holds() -> None:
    gate = replace(GATE, maximum_latency_p95_ms=900, maximum_cost_per_1000_usd=0.01)
    nothing = {name: exactly(0.0) for name in PAIRED}
    found = {
        (check.against, check.name): check.limit_is for check in checks(gate, PERFECT, PERFECT, nothing, 100)
    }
    least = {key for key, bound in found.items() if bound == "least"}
    assert least == {
        ("threshold", "examples"),
        ("threshold", "valid output"),
        ("threshold", "dominant-label accuracy"),
        ("live", "valid output"),
        ("live", "dominant-label accuracy"),
    }
    assert len(found) == 11


def test_too_few_questions_never_pass() -> None:
    assert reasons(questions=40) == []
    assert reasons(questions=39) == ["examples is 39, threshold 40"]


@pytest.mark.parametrize(
    ("field", "difference", "refused"),
    [
        ("dominant_accuracy", Estimate(-0.05, -0.08, -0.021, 100), True),
        ("dominant_accuracy", Estimate(-0.05, -0.12, -0.019, 100), False),  # may be no worse than allowed
        ("dominant_accuracy", Estimate(0.05, 0.03, 0.08, 100), False),
        ("valid_output", Estimate(-0.03, -0.04, -0.025, 100), True),
        ("mean_absolute_error", Estimate(0.04, 0.03, 0.05, 100), True),
        ("mean_absolute_error", Estimate(0.04, 0.01, 0.07, 100), False),
        ("mean_absolute_error", Estimate(-0.04, -0.05, -0.03, 100), False),
        ("mean_absolute_error", UNKNOWN, False),
    ],
)
def test_candidate_is_refused_where_the_whole_interval_says_that_it_is_worse(
    field: str, difference: Estimate, refused: bool
) -> None:
    found = reasons(live=PERFECT, compared={field: difference})
    assert bool(found) is refused
    if refused:
        assert "worse than the live release's (95 % interval" in found[0]
        for lax in (replace(GATE, not_worse=False), replace(GATE, non_inferiority_margin=0.2)):
            assert reasons(live=PERFECT, compared={field: difference}, gate=lax) == []


@pytest.mark.parametrize(
    ("field", "found", "refused"),
    [
        ("latency_p50_ms", 376.0, True),
        ("latency_p50_ms", 374.0, False),
        ("cost_per_1000_usd", 0.0038, True),
        ("cost_per_1000_usd", 0.0037, False),
        ("cost_per_1000_usd", 0.001, False),
    ],
)
def test_slower_or_dearer_candidate_is_refused(field: str, found: float, refused: bool) -> None:
    said = reasons({field: exactly(found)}, live=PERFECT)
    assert bool(said) is refused
    if refused:
        assert "allowed 1.25 times its upper bound" in said[0]


def test_few_milliseconds_are_no_matter_whatever_the_ratio() -> None:
    live = {**PERFECT, "latency_p50_ms": exactly(5.0)}
    assert reasons({"latency_p50_ms": exactly(54.0)}, live=live) == []
    assert len(reasons({"latency_p50_ms": exactly(56.0)}, live=live)) == 1


# The report


def scored(answers: Sequence[Answer], questions: Sequence[Question], name: str = CANDIDATE) -> Scored:
    return Scored(Contender(name=name, title=name), {one.id: one for one in answers}, questions, TASK)


def document(answers: Sequence[Answer], questions: Sequence[Question]) -> dict[str, Any]:
    return report_of([scored(answers, questions)], GATE, {"release": "a", "attempt": 1})


REFERENCE = weights(100, 0, 0, 0)
QUESTIONS = [
    Question(name, "holdout", f"query {name}", REFERENCE) for name in ("near", "none", "far", "lost")
]
ANSWERS = [
    Answer("near", weights(90, 10, 0, 0), "", 100, 40, 10),
    Answer("none", None, "no weights", 9_000, 40, 5),
    Answer("far", weights(10, 90, 0, 0), "", 300, 40, 10),
]


def test_report_lists_the_worst_answers_first() -> None:
    worst = document(ANSWERS, QUESTIONS)["worst"]
    assert [one["query"] for one in worst] == ["query none", "query far", "query near"]
    assert [one["error"] for one in worst] == [None, pytest.approx(0.9), pytest.approx(0.1)]


def test_question_that_could_not_be_asked_has_no_value_of_any_metric() -> None:
    answer = Answer("1", None, "ThrottlingException", unavailable="throttled")
    question = Question("1", "holdout", "red car", weights(80, 20, 0, 0))
    assert set(values(question, answer, TASK, lambda _: 0.5).values()) == {None}
    found = document(ANSWERS, QUESTIONS)["contenders"][CANDIDATE]
    assert found["unasked"] == {"questions": 4, "count": 1, "why": "1 not asked"}
    assert found["metrics"]["valid_output"]["rows"] == 3


def test_report_shows_where_labels_are_confused_and_how_long_answers_take() -> None:
    found = document(ANSWERS, QUESTIONS)["contenders"][CANDIDATE]
    assert found["confusion"][LABELS[0]] == {LABELS[0]: 1, LABELS[1]: 1, "invalid": 1}
    assert found["label_errors"][LABELS[0]][0] == pytest.approx(-0.9)
    times = dict(zip(found["latency"]["edges_ms"], found["latency"]["counts"], strict=True))
    assert {edge: count for edge, count in times.items() if count} == {100: 1, 300: 1, 5_000: 1}
    assert list(found["by_length"]) == ["1 to 3 words"]


def test_variant_is_consistent_where_it_gets_the_weights_of_its_original() -> None:
    variants = [
        Question("same", "typos", "a", REFERENCE, "near"),
        Question("other", "typos", "b", REFERENCE, "near"),
        Question("invalid", "typos", "c", REFERENCE, "near"),
        Question("orphan", "typos", "d", REFERENCE, "none"),
    ]
    answers = [
        *ANSWERS,
        Answer("same", weights(80, 20, 0, 0), "", 100, 40, 10),
        Answer("other", weights(70, 30, 0, 0), "", 100, 40, 10),
        Answer("invalid", None, "no weights", 100, 40, 10),
        Answer("orphan", weights(90, 10, 0, 0), "", 100, 40, 10),
    ]
    found = document(answers, [*QUESTIONS, *variants])["contenders"][CANDIDATE]["slices"]["typos"]
    assert (found["rows"], found["metrics"]["consistency"]["value"]) == (4, 0.25)


def test_differences_are_those_of_the_same_questions() -> None:
    other = [
        Answer("near", weights(90, 10, 0, 0), "", 1, 1, 1),
        Answer("far", REFERENCE, "", 1, 1, 1),
        Answer("none", None, "", unavailable="throttled"),
        Answer("lost", REFERENCE, "", 1, 1, 1),
    ]
    found = differences(scored(ANSWERS, QUESTIONS), scored(other, QUESTIONS))
    # Only questions that both could be asked are paired.
    assert found["dominant_accuracy"].value == pytest.approx(-0.5)
    assert found["dominant_accuracy"].rows == 2
    # Of these, only those for which both have weights.
    assert found["mean_absolute_error"].value == pytest.approx(0.225)
    assert found["mean_absolute_error"].rows == 2


def test_question_that_one_of_both_could_not_be_asked_is_missing_for_both() -> None:
    other = [
        Answer("near", REFERENCE, "", 1, 1, 1),
        Answer("far", None, "", unavailable="throttled"),
        Answer("none", REFERENCE, "", 1, 1, 1),
        Answer("lost", REFERENCE, "", 1, 1, 1),
    ]
    found = unasked_of_both(scored(ANSWERS, QUESTIONS), scored(other, QUESTIONS))
    assert (found.asked, found.reasons) == (2, {"throttled": 1, "not_asked": 1})


def test_answers_are_read_as_they_were_kept() -> None:
    for answer in (*ANSWERS, Answer("lost", None, "timed out", unavailable="timed_out")):
        assert read(row(STATIC, answer)) == (STATIC, answer)
