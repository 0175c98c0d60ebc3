"""Labels and slices: their limits in the gate, and what is said of weak ones without a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from distilled_router.release.gate import Gate
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.contenders import CANDIDATE, Contender
from evaluation.metrics import Answer, Question
from evaluation.page import page
from evaluation.parts import parts_of, weak
from evaluation.score_and_gate import report_of
from evaluation.scored import Scored
from tests.unit.evaluation.court import DATA, LAX, ROWS, Court
from tests.unit.release_world import A, World

TASK = Task.load()
LABELS = TASK.labels
GATE = Gate(
    minimum_valid_output=0.0,
    minimum_dominant_accuracy=0.5,
    maximum_mean_absolute_error=1.0,
    minimum_examples=40,
)
# Right answers and queries by label of the hold-out set, and by slice.
GOOD: Mapping[str, tuple[int, int]] = dict.fromkeys(LABELS, (58, 60))
INJECTED: Mapping[str, tuple[int, int]] = {**GOOD, "injections": (10, 25), "typos": (24, 25)}


def only(label: str) -> dict[str, float]:
    return {other: float(other == label) for other in LABELS}


def scored(given: Mapping[str, tuple[int, int]], unasked: int = 0) -> Scored:
    """Return a candidate with so many right answers of so many; the last ones could not be asked."""
    questions, answers = [], {}
    for name, (right, count) in given.items():
        label, slice_ = (name, "holdout") if name in LABELS else (LABELS[0], name)
        wrong = LABELS[LABELS.index(label) - 1]
        for number in range(count):
            key = f"{name}-{number}"
            questions.append(
                Question(key, slice_, key, None if name == "out_of_domain" else only(label), family=-1)
            )
            answer = Answer(key, only(label if number < right else wrong))
            if name == "out_of_domain" and number >= right:
                answer = Answer(key, None, "prose")
            if slice_ != "holdout" and number >= count - unasked:
                answer = Answer(key, None, "throttled", unavailable="throttled")
            answers[key] = answer
    return Scored(Contender(name=CANDIDATE, title=CANDIDATE), answers, questions, TASK)


def report(given: Mapping[str, tuple[int, int]], unasked: int = 0, **limits: Any) -> dict[str, Any]:
    return report_of([scored(given, unasked)], replace(GATE, **limits), {})


# Limits


@pytest.mark.parametrize(("least", "refused"), [(0.6, False), (0.61, True)])
def test_worst_label_may_reach_its_limit_but_not_miss_it(least: float, refused: bool) -> None:
    found = report({**GOOD, LABELS[1]: (36, 60)}, minimum_worst_label_accuracy=least)
    assert found["passed"] is not refused
    assert found["reasons"] == (
        [
            f"Dominant label right for 60.0% of 60 queries of {LABELS[1]}, the worst label; at least 61.0% "
            "wanted."
        ]
        if refused
        else []
    )
    (check,) = [one for one in found["checks"] if "worst label" in one["name"]]
    assert (check["found"], check["limit"], check["limit_is"]) == (0.6, least, "least")
    assert check["low"] < 0.6 < check["high"]


def test_labels_with_few_queries_count_as_one() -> None:
    few = {LABELS[0]: (58, 60), LABELS[1]: (1, 6), LABELS[2]: (4, 6)}
    (reason,) = report(few, minimum_worst_label_accuracy=0.5)["reasons"]
    assert reason == (
        "Dominant label right for 41.7% of 12 queries of other labels, the worst label; at least 50.0% "
        "wanted."
    )


def test_worst_label_without_enough_queries_is_not_evaluated() -> None:
    rows = dict.fromkeys(LABELS, (2, 2))
    found = report(rows, minimum_examples=1, minimum_worst_label_accuracy=0.5)
    assert not found["decided"]
    assert found["reasons"] == [
        "No label has 10 hold-out queries, so gate.minimum_worst_label_accuracy 0.5 can't be checked. Add "
        "queries."
    ]


@pytest.mark.parametrize(("least", "refused"), [(0.4, False), (0.41, True)])
def test_slice_may_reach_its_limit_but_not_miss_it(least: float, refused: bool) -> None:
    found = report(INJECTED, minimum_slice_accuracy={"injections": least, "typos": 0.9})
    assert found["reasons"] == (
        ["Dominant label right for 40.0% of 25 queries of the slice injections; at least 41.0% wanted."]
        if refused
        else []
    )
    assert [one["name"] for one in found["checks"] if "slice" in one["name"]] == [
        "accuracy in the slice injections",
        "accuracy in the slice typos",
    ]


@pytest.mark.parametrize(
    ("given", "unasked", "why"),
    [
        (GOOD, 0, "No query of the slice was asked"),
        (INJECTED, 2, "23 of 25 queries could be asked"),
    ],
)
def test_slice_that_was_not_asked_is_not_evaluated(
    given: Mapping[str, tuple[int, int]], unasked: int, why: str
) -> None:
    found = report(given, unasked, minimum_slice_accuracy={"injections": 0.1})
    assert not found["passed"]
    assert not found["decided"]
    assert found["reasons"] == [f"{why}, so gate.minimum_slice_accuracy.injections 0.1 can't be checked."]


def test_without_limits_there_are_no_such_checks() -> None:
    found = report(INJECTED)
    assert not [one for one in found["checks"] if "label," in one["name"] or "slice" in one["name"]]


def test_page_shows_the_limit_of_a_slice_among_the_settings() -> None:
    shown = page(report(INJECTED, minimum_slice_accuracy={"injections": 0.1}))
    assert "<dt>minimum_slice_accuracy.injections</dt><dd>0.1</dd>" in shown


# What is said without a limit


def test_passed_report_names_weak_parts_with_number_and_count() -> None:
    found = report({**INJECTED, LABELS[3]: (40, 60), "out_of_domain": (4, 8)})
    assert found["passed"]
    assert found["weak"] == (
        f"weak parts: injections 40.0% of 25 queries, out_of_domain 50.0% of 8 queries (valid output), label "
        f"{LABELS[3]} 66.7% of 60 queries; the whole hold-out set: dominant label 89.2%, valid output 100.0%"
    )
    shown = page(found)
    header = shown[shown.index("<header") : shown.index("</header>")]
    assert 'class="decision weak"' in header
    assert found["weak"][1:] in header


def test_parts_as_good_as_the_whole_are_not_named() -> None:
    found = report({**GOOD, "injections": (23, 25), "typos": (9, 10), "very_long": (0, 0)})
    assert found["weak"] == ""
    assert 'class="decision"' in page(found)
    assert "remark" not in page(found).split("</style>")[1]


def test_part_with_a_limit_is_not_named_beside_it() -> None:
    assert report(INJECTED, minimum_slice_accuracy={"injections": 0.3})["weak"] == ""
    bad = {**GOOD, LABELS[1]: (36, 60)}
    assert LABELS[1] in report(bad)["weak"]
    assert report(bad, minimum_worst_label_accuracy=0.5)["weak"] == ""


def test_of_many_weak_parts_the_weakest_are_named() -> None:
    names = ("typos", "upper_case", "paraphrases", "injections", "very_long", "other_languages", "traffic")
    given = {**GOOD, **{name: (place, 25) for place, name in enumerate(names)}}
    candidate = scored(given)
    found = weak(parts_of(candidate), candidate.overall, GATE)
    assert [part.name for part in found] == list(names)
    text = report(given)["weak"]
    assert text.startswith("weak parts: typos 0.0% of 25 queries, upper_case 4.0% of 25 queries, ")
    assert "very_long 16.0% of 25 queries and 2 more; the whole" in text


def test_message_of_a_release_names_its_weak_parts(world: World, court: Court) -> None:
    court.candidate(ROWS)
    court.hold_out((DATA / "holdout.jsonl").read_text().splitlines())
    robustness = Robustness.load(court.task, DATA.parent / "task")
    done = court.evaluate(gate=LAX, robustness=robustness, slice_queries=25, environment="dev")
    assert done["outcome"] == "done"
    text = court.report()["weak"]
    assert "injections " in text
    assert f"\nWarning: {text}" in done["message"]
    assert text in world.release(A).warnings
