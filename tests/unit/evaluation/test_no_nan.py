"""Nothing that is written or said holds NaN or an infinity, whatever the answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from distilled_router.release.gate import Gate
from distilled_router.task.converse import Reason
from distilled_router.task.task import Task
from evaluation.contenders import BASE, CANDIDATE, LIVE, STATIC, Contender
from evaluation.grades import Grades
from evaluation.metrics import Answer, Question
from evaluation.page import page
from evaluation.score_and_gate import report_of, told
from evaluation.scored import Scored
from rollout.canary import Evidence, problems
from rollout.evidence import WRONG, Probed
from rollout.metrics import Count, ReleaseMetrics, RequestMetrics
from tests.unit.release_world import ANY, rollout

TASK = Task.load()
NO_NUMBER = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)
ONE = {label: float(label == TASK.labels[0]) for label in TASK.labels}
EQUAL = {label: 1 / len(TASK.labels) for label in TASK.labels}
QUESTIONS = [
    *(Question(f"q{number}", "holdout", f"query {number}", ONE) for number in range(4)),
    Question("t0", "typos", "qeury 0", ONE, "q0"),
    Question("o0", "out_of_domain", "hello", None),
]
SHARE = st.sampled_from([0.0, 0.5, 1.0])
GATES = st.builds(
    Gate,
    minimum_valid_output=SHARE,
    minimum_dominant_accuracy=SHARE,
    maximum_mean_absolute_error=SHARE,
    minimum_examples=st.integers(1, 5),
    maximum_latency_p95_ms=st.sampled_from([None, 1.0, 1e6]),
    maximum_cost_per_1000_usd=st.sampled_from([None, 0.0, 1.0]),
    minimum_judge_score=st.sampled_from([None, 3.0]),
    minimum_balanced_accuracy=st.sampled_from([None, 0.5]),
    not_worse=st.booleans(),
)


def given_answer(*weights: dict[str, float] | None) -> st.SearchStrategy[Answer]:
    """Return an answer with some of these weights, with and without latency and usage."""
    return st.builds(
        Answer,
        st.just(""),
        st.sampled_from(weights),
        st.just(""),
        st.sampled_from([0.0, 12.5]),
        st.sampled_from([0, 40]),
        st.sampled_from([0, 9]),
    )


FAILED = st.sampled_from(get_args(Reason)).map(lambda reason: Answer("", None, reason, unavailable=reason))
# What one contender may answer; None for no row.
KINDS = st.sampled_from(
    [
        given_answer(None),
        given_answer(ONE, EQUAL),
        given_answer(None, ONE, EQUAL),
        st.one_of(st.none(), given_answer(None, ONE, EQUAL), FAILED),
    ]
)
GRADES = st.builds(
    Grades,
    judge=st.just("j"),
    asked=st.integers(0, 4),
    invalid=st.integers(0, 2),
    grades=st.lists(st.floats(1, 5), max_size=3),
    problem=st.sampled_from(["", "none"]),
)


def contender(name: str) -> st.SearchStrategy[Scored]:
    """Return a contender with any answers."""
    model = "amazon.nova-micro-v1:0" if name != STATIC else ""
    some = KINDS.flatmap(lambda kind: st.lists(kind, min_size=len(QUESTIONS), max_size=len(QUESTIONS)))

    def scored(given: list[Answer | None]) -> Scored:
        answers = {question.id: one for question, one in zip(QUESTIONS, given, strict=True) if one}
        weights = ONE if name == STATIC else None
        return Scored(
            Contender(name=name, title=name, model=model, weights=weights), answers, QUESTIONS, TASK
        )

    return some.map(scored)


def texts(found: Any) -> Iterator[str]:
    """Yield all texts in a document."""
    match found:
        case str():
            yield found
        case dict():
            for value in found.values():
                yield from texts(value)
        case list() | tuple():
            for value in found:
                yield from texts(value)


@settings(max_examples=150, deadline=None)
@given(
    contender(CANDIDATE),
    st.lists(st.sampled_from([LIVE, BASE, STATIC]).flatmap(contender), max_size=3),
    GATES,
    st.none() | GRADES,
)
def test_no_report_and_no_message_of_an_evaluation(
    candidate: Scored, others: list[Scored], gate: Gate, grades: Grades | None
) -> None:
    identity = {"release": "a", "attempt": 1, "data": {"slices": {"holdout": 4}}}
    report = report_of([candidate, *others], gate, identity, grades)
    json.dumps(report, allow_nan=False)
    result, scores = told(report)
    json.dumps(scores, allow_nan=False)
    for text in (*texts(report), result["message"], re.sub("<[^>]*>", " ", page(report))):
        assert not NO_NUMBER.search(text), text
    assert (result["outcome"] == "done") is report["passed"]


COUNTS = st.builds(Count, st.sampled_from([0.0, 1.0, 20.0]), st.sampled_from([20.0])) | st.just(Count())
RATES = st.dictionaries(
    st.sampled_from(["error_rate", "fallback_rate", "invalid_output_rate", WRONG]), COUNTS
)
PROBES = st.builds(ReleaseMetrics, counts=RATES)
METRICS = st.builds(
    RequestMetrics,
    counts=RATES,
    explored=RATES,
    by_head=st.sampled_from([0.0, 20.0]),
    processes=st.sampled_from([1.0, 3.0]),
    repeated=st.sampled_from([0.0, 5.0]),
    requests=COUNTS,
)
PROBED = st.builds(
    Probed,
    asked=st.sampled_from([0, 20, 60]),
    families=st.sampled_from([0, 7, 20]),
    candidate=PROBES,
    live=PROBES,
    lost=st.sampled_from([0, 20]),
    both=st.sampled_from([0, 20]),
)


@settings(max_examples=150, deadline=None)
@given(METRICS, st.none() | METRICS, PROBED, st.sampled_from([0.0, 0.1]))
def test_no_reason_of_a_rollback(
    candidate: RequestMetrics, live: RequestMetrics | None, probed: Probed, limit: float
) -> None:
    rates = ("maximum_error_rate", "maximum_fallback_rate", "maximum_invalid_output_rate")
    wanted = rollout(1.0, **dict.fromkeys(rates, limit))
    gate = replace(ANY, not_worse=True, minimum_dominant_accuracy=1 - limit)
    for problem in problems(Evidence(candidate, live, probed), wanted, gate):
        assert not NO_NUMBER.search(problem)
