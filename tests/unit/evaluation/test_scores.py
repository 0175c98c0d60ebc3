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
from evaluation.gate import ERROR, PAIRED, Comparison, Evidence, checks
from evaluation.intervals import BOUNDS, UNKNOWN, Estimate, mean_of_means, means, quantile
from evaluation.metrics import (
    BALANCED,
    METRICS,
    Answer,
    Question,
    divergence,
    rubric,
    shown,
    values,
)
from evaluation.score_and_gate import differences, report_of, unasked_of_both
from evaluation.scored import Scored
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


PERFECT = {name: exactly(1.0) for name in (*METRICS, BALANCED)} | {
    "mean_absolute_error": exactly(0.0),
    "latency_p50_ms": exactly(300.0),
    "latency_p95_ms": exactly(400.0),
    "cost_per_1000_usd": exactly(0.003),
}


def evidence(
    changes: dict[str, Estimate] | None = None,
    *,
    live: dict[str, Estimate] | None = None,
    compared: dict[str, Estimate] | None = None,
    error: Estimate | None = None,
    questions: int = 100,
) -> Evidence:
    """Return what the gate decides by; `error` is the difference to a constant answer."""
    beside = [Comparison(against="live", whose="the live release", differences=compared)] if compared else []
    constant = [
        Comparison(against="static weights", whose="the static weights", differences={ERROR: found})
        for found in [error]
        if found
    ]
    return Evidence(
        questions=questions,
        candidate={**PERFECT, **(changes or {})},
        live=live,
        groups=4,
        releases=beside,
        constants=constant,
    )


def reasons(
    changes: dict[str, Estimate] | None = None,
    *,
    gate: Gate = GATE,
    live: dict[str, Estimate] | None = None,
    compared: dict[str, Estimate] | None = None,
    questions: int = 100,
) -> list[str]:
    found = checks(gate, evidence(changes, live=live, compared=compared, questions=questions))
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


def test_row_counts_as_often_as_its_weight_says() -> None:
    values, counts = [1.0, 0.0, 1.0, 1.0, 0.0] * 12, [5, 1, 1, 2, 1] * 12
    found = means({"x": values}, weights=counts, shares=["x"])["x"]
    repeated = [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
    families = [place for place, count in enumerate(counts) for _ in range(count)]
    whole = means({"x": repeated}, families)["x"]
    assert found.value == pytest.approx(whole.value) == pytest.approx(0.8)
    assert found.rows == 60
    # At least as wide as the bootstrap of the repeated rows by query, and wider than without weights.
    assert found.low <= whole.low + 1e-9
    assert found.high >= whole.high - 1e-9
    plain = means({"x": values}, shares=["x"])["x"]
    assert found.high - found.low > plain.high - plain.low
    assert means({"x": values}, weights=[3] * 60, shares=["x"])["x"] == plain


def test_heavy_query_leaves_few_rows_to_be_sure_of() -> None:
    certain, heavy = (
        means({"x": [1.0] * 200}, weights=w, shares=["x"])["x"].low for w in ((), [100, *[1] * 199])
    )
    assert certain > 0.98
    assert heavy == pytest.approx(0.05 ** (1 / 8.77), abs=0.001)  # 299 squared, by 200 and 100 squared + 199


def test_interval_of_many_rows_is_as_wide_as_it_must_be() -> None:
    chance = random.Random(7)
    many = [chance.random() for _ in range(30_000)]
    found = means({"value": many})["value"]
    half = 1.96 * math.sqrt(1 / 12 / 30_000)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    chance, held = random.Random(3), 0
    for _ in range(200):
        found = means({"value": [chance.gauss(5, 2) for _ in range(60)]})["value"]
        held += found.low <= 5 <= found.high
    assert 180 <= held <= 198


def test_interval_of_families_is_as_wide_as_that_of_their_means() -> None:
    """A hundred families of ten equal rows say no more than a hundred rows."""
    chance = random.Random(5)
    firsts = [float(chance.random() < 0.8) for _ in range(100)]
    rows, families = [one for one in firsts for _ in range(10)], [n for n in range(100) for _ in range(10)]
    alone, together = means({"x": rows})["x"], means({"x": rows}, families)["x"]
    single = means({"x": firsts})["x"]
    assert together.high - together.low == pytest.approx(single.high - single.low, rel=0.1)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_interval_of_families_holds_the_truth_as_often_as_it_says() -> None:
    chance, held = random.Random(3), 0
    families = [number // 4 for number in range(400)]
    for _ in range(200):
        firsts = [float(chance.random() < 0.9) for _ in range(100)]
        rows = {"x": [firsts[number] for number in families]}
        found = means(rows, families, shares=["x"])["x"]
        held += found.low <= 0.9 <= found.high
    assert 184 <= held <= 200


def test_share_of_all_or_none_has_an_exact_bound() -> None:
    found = means({"all": [1.0] * 200, "none": [0.0] * 200}, shares=["all", "none"])
    assert found["all"].low == pytest.approx(0.985, abs=0.0002)
    assert found["none"].high == pytest.approx(0.015, abs=0.0002)
    assert (found["none"].low, found["all"].high) == (0.0, 1.0)
    # Four rows of a family are less than four rows.
    alike = means({"all": [1.0] * 200}, [number // 4 for number in range(200)], shares=["all"])["all"]
    assert alike.low < 0.975


def test_interval_of_nearly_all_is_at_least_wilsons() -> None:
    found = means({"x": [1.0] * 199 + [0.0]}, shares=["x"])["x"]
    assert found.low == pytest.approx(0.9722, abs=0.001)


def test_equal_answers_to_few_questions_do_not_show_much() -> None:
    for rows, most in ((40, 0.072), (200, 0.015)):
        found = means({"x": [0.0] * rows}, shares=["x"], paired=["x"], confidence=BOUNDS)["x"]
        assert -found.low == found.high == pytest.approx(most, abs=0.001)
        seldom = means({"x": [0.0] * (rows - 1) + [-1.0]}, shares=["x"], paired=["x"], confidence=BOUNDS)["x"]
        assert seldom.low < found.low


def test_rows_of_one_family_show_little() -> None:
    chance = random.Random(1)
    errors = [chance.gauss(0.0, 0.1) for _ in range(200)]
    alone = means({"x": errors}, paired=["x"], confidence=BOUNDS)["x"]
    one = means({"x": errors}, [7] * 200, paired=["x"], confidence=BOUNDS)["x"]
    assert alone.high - alone.low < 0.03
    # About three independent rows.
    assert one.high - one.low > 0.15
    right = means({"x": [1.0] * 150 + [0.0] * 50}, [7] * 200, shares=["x"])["x"]
    assert right.high - right.low > 0.5


def test_one_row_proves_nothing() -> None:
    found = means({"error": [-0.1], "right": [1.0]}, shares=["right"], paired=["error", "right"])
    assert found["error"].low < -0.1 < 0 < found["error"].high
    assert found["right"].low < 0 < found["right"].high


def test_loss_in_rare_rows_is_not_hidden_by_its_small_variance() -> None:
    """A loss of 0.5 in 4 % of the rows is one of 0.02, and only 2 of 100 rows happen to have it."""
    found = means({"x": [0.5] * 2 + [0.0] * 98}, paired=["x"], confidence=BOUNDS)["x"]
    assert found.value == 0.01
    assert found.high > 0.0225


def test_group_whose_rows_are_all_right_is_not_certain() -> None:
    columns: dict[str, list[float | None]] = {
        "a": [1.0] * 10 + [None] * 10,
        "b": [None] * 10 + [1.0] * 10,
    }
    found = mean_of_means(columns, are_shares=True)
    assert 0.8 < found.low < 0.93
    assert found.high == 1.0
    # Rows of one family in both groups make the mean less certain.
    alike = mean_of_means(columns, [place % 10 for place in range(20)], are_shares=True)
    assert alike.low == found.low
    mixed = {"a": [1.0, 0.0] * 5 + [None] * 10, "b": [None] * 10 + [1.0, 0.0] * 5}
    apart = mean_of_means(mixed, are_shares=True)
    together = mean_of_means(mixed, [place % 10 for place in range(20)], are_shares=True)
    assert together.high - together.low > 1.2 * (apart.high - apart.low)


def test_mean_of_means_weighs_every_column_alike() -> None:
    columns: dict[str, list[float | None]] = {
        "many": [1.0] * 90 + [None] * 10,
        "few": [None] * 90 + [0.0] * 5 + [1.0] * 5,
    }
    found = mean_of_means(columns)
    assert (found.value, found.rows) == (0.75, 100)
    assert 0.5 < found.low < 0.7 < 0.8 < found.high < 1.0
    assert mean_of_means({}) == UNKNOWN
    assert mean_of_means({**columns, "none": [None] * 100}) == UNKNOWN


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

STRICT = replace(
    GATE, maximum_latency_p95_ms=900, maximum_cost_per_1000_usd=0.01, minimum_balanced_accuracy=0.7
)


@pytest.mark.parametrize(
    ("field", "at", "beyond", "text"),
    [
        (
            "valid_output",
            0.98,
            0.9799,
            "Valid output for 97.99% of 100 queries; at least 98% wanted.",
        ),
        (
            "dominant_accuracy",
            0.8,
            0.799,
            "Dominant label right for 79.9% of 100 queries; at least 80.0% wanted.",
        ),
        (
            "balanced_accuracy",
            0.7,
            0.699,
            "Dominant label right for 69.9% on average over the labels (balanced accuracy); at least 70.0% "
            "wanted.",
        ),
        ("mean_absolute_error", 0.15, 0.1501, "Mean absolute error 0.1501; at most 0.15 wanted."),
        ("latency_p95_ms", 900, 1_901, "Latency at p95 1,901 ms; at most 900 ms wanted."),
        ("cost_per_1000_usd", 0.01, 0.011, "Cost of 1,000 queries 0.011 USD; at most 0.010 USD wanted."),
    ],
)
def test_each_threshold_may_be_reached_but_not_missed(
    field: str, at: float, beyond: float, text: str
) -> None:
    assert reasons({field: exactly(at)}, gate=STRICT) == []
    assert reasons({field: exactly(beyond)}, gate=STRICT) == [text]
    # A mean of no values, or an unknown price, never passes.
    (reason,) = reasons({field: UNKNOWN}, gate=STRICT)
    assert " unknown; at " in reason or reason.startswith("No two labels have 10 hold-out")


def test_each_check_says_which_way_its_limit_holds() -> None:
    nothing = {name: exactly(0.0) for name in PAIRED}
    given = evidence(live=PERFECT, compared=nothing, error=exactly(-0.1))
    found = {(check.against, check.name): check.limit_is for check in checks(STRICT, given)}
    least = {key for key, bound in found.items() if bound == "least"}
    assert least == {
        ("threshold", "examples"),
        ("threshold", "valid output"),
        ("threshold", "dominant-label accuracy"),
        ("threshold", "balanced accuracy"),
        ("chance", "balanced accuracy"),
        ("live", "valid output"),
        ("live", "dominant-label accuracy"),
    }
    assert len(found) == 14


def test_too_few_questions_never_pass() -> None:
    assert reasons(questions=40) == []
    assert reasons(questions=39) == ["Hold-out set of 39 queries; at least 40 wanted."]


@pytest.mark.parametrize(
    ("field", "difference", "refused"),
    [
        ("dominant_accuracy", Estimate(-0.01, -0.051, 0.01, 100), True),  # may be worse than allowed
        ("dominant_accuracy", Estimate(-0.01, -0.049, 0.01, 100), False),
        ("dominant_accuracy", Estimate(0.02, -0.06, 0.08, 100), True),  # too few rows to tell
        ("dominant_accuracy", Estimate(0.05, 0.03, 0.08, 100), False),
        ("valid_output", Estimate(-0.04, -0.06, -0.025, 100), True),
        ("mean_absolute_error", Estimate(0.01, -0.01, 0.021, 100), True),
        ("mean_absolute_error", Estimate(0.01, -0.01, 0.019, 100), False),
        ("mean_absolute_error", Estimate(-0.04, -0.05, -0.03, 100), False),
        ("mean_absolute_error", UNKNOWN, False),
    ],
)
def test_candidate_is_refused_unless_it_is_shown_not_to_be_worse(
    field: str, difference: Estimate, refused: bool
) -> None:
    found = reasons(live=PERFECT, compared={field: difference})
    assert bool(found) is refused
    if refused:
        assert " than with the live release; at most " in found[0]
        lax = replace(GATE, non_inferiority_margin=0.2, error_margin=0.2)
        for gate in (replace(GATE, not_worse=False), lax):
            assert reasons(live=PERFECT, compared={field: difference}, gate=gate) == []


def test_candidate_is_refused_unless_it_is_shown_to_be_better_than_a_constant_answer() -> None:
    for difference, refused in (
        (Estimate(-0.1, -0.2, -0.01, 9), False),
        (Estimate(-0.1, -0.2, 0.01, 9), True),
    ):
        found = [check.reason for check in checks(GATE, evidence(error=difference)) if not check.ok]
        assert bool(found) is refused
    assert found == [
        "Mean absolute error 0.100 smaller than with the static weights; smaller wanted, but 0.010 larger "
        "possible (one-sided 95 % bound)."
    ]


@pytest.mark.parametrize(
    ("field", "difference", "text"),
    [
        (
            "dominant_accuracy",
            Estimate(-0.254, -0.325, -0.2, 100),
            "Dominant label right for 25.4 points fewer queries than with the live release; at most 5.0 "
            "points fewer wanted.",
        ),
        (
            "dominant_accuracy",
            Estimate(0.02, -0.06, 0.08, 100),
            "Dominant label right for 2.0 points more queries than with the live release; at most 5.0 points "
            "fewer wanted, but 6.0 points fewer possible (one-sided 95 % bound).",
        ),
        (
            "mean_absolute_error",
            Estimate(0.108, 0.09, 0.124, 100),
            "Mean absolute error 0.108 larger than with the live release; at most 0.020 larger wanted.",
        ),
    ],
)
def test_interval_is_told_only_if_it_decides(field: str, difference: Estimate, text: str) -> None:
    assert reasons(live=PERFECT, compared={field: difference}) == [text]


def test_candidate_is_refused_unless_it_tells_labels_apart() -> None:
    assert reasons({BALANCED: Estimate(0.4, 0.26, 0.5, 100)}) == []
    subject = "Dominant label right for {}% on average over the labels (balanced accuracy)"
    wanted = "more than the 25.0% of an answer that is always the same wanted"
    assert reasons({BALANCED: Estimate(0.3, 0.245, 0.4, 100)}) == [
        f"{subject.format('30.0')}; {wanted}, but 24.5% possible (95 % interval: 24.5 to 40.0%)."
    ]
    assert reasons({BALANCED: Estimate(0.2, 0.1, 0.3, 100)}) == [f"{subject.format('20.0')}; {wanted}."]
    # Too few labels have queries: the comparison with constant answers still decides.
    assert reasons({BALANCED: UNKNOWN}) == []


def test_required_balanced_accuracy_that_is_unknown_is_no_judgement() -> None:
    (check,) = (one for one in checks(STRICT, evidence({BALANCED: UNKNOWN})) if not one.ok)
    assert not check.is_known


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
        assert "; at most 1.25 times as much wanted, by their 95 % intervals (" in said[0]


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


def test_scores_by_traffic_are_there_where_it_is_known() -> None:
    assert document(ANSWERS, QUESTIONS)["contenders"][CANDIDATE]["by_traffic"] == {}
    often = [replace(one, count=8 if one.id == "near" else 1) for one in QUESTIONS]
    found = document(ANSWERS, often)["contenders"][CANDIDATE]
    part = found["by_traffic"]["as often as asked"]
    assert part["rows"] == 3
    assert found["metrics"]["dominant_accuracy"]["value"] == pytest.approx(1 / 3)
    assert part["metrics"]["dominant_accuracy"]["value"] == pytest.approx(8 / 10)
    assert part["metrics"]["dominant_accuracy"]["rows"] == 3


def test_slice_traffic_counts_each_query_as_often_as_it_was_asked() -> None:
    """Queries are drawn for it, and it stands for requests."""
    like = [replace(one, id=f"traffic-{one.id}", slice="traffic") for one in QUESTIONS]
    answers = [*ANSWERS, *(replace(one, id=f"traffic-{one.id}") for one in ANSWERS)]
    for count, accuracy in ((1, 1 / 3), (8, 8 / 10)):
        often = [replace(one, count=count if one.id == "traffic-near" else 1) for one in like]
        found = document(answers, [*QUESTIONS, *often])["contenders"][CANDIDATE]["slices"]["traffic"]
        assert found["metrics"]["dominant_accuracy"]["value"] == pytest.approx(accuracy)
        assert found["rows"] == 3


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
