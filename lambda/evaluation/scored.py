"""One contender's scores, with their breakdown for the report."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from distilled_router.cost.prices import PriceError, Prices
from distilled_router.task.robustness import TRAFFIC
from distilled_router.task.task import Task
from evaluation.contenders import Contender
from evaluation.intervals import Estimate, mean_of_means, means, quantile
from evaluation.label_groups import by_group, label_groups
from evaluation.metrics import (
    BALANCED,
    LATENCIES,
    METRICS,
    NEAR,
    Answer,
    Question,
    distances,
    values,
)
from evaluation.questions import HOLDOUT
from evaluation.unasked import Unasked

# Largest numbers of words of the first two length groups; the third has longer queries.
LENGTHS = (3, 7)
# Lower bounds of the latency ranges in milliseconds; the last range is open.
LATENCY_EDGES = (
    0,
    10,
    20,
    30,
    50,
    75,
    100,
    150,
    200,
    300,
    400,
    500,
    600,
    800,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
)
QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)
# The metrics whose values are zeros and ones.
SHARES = tuple(name for name, metric in METRICS.items() if metric.unit == "share")

type Values = Mapping[str, float | None]
type Row = tuple[Question, Values]
"""A question, and the values of its answer."""


class Scored:
    """One contender's scored answers. `rows` holds each question with its answer's values, in order."""

    def __init__(
        self,
        contender: Contender,
        answers: Mapping[str, Answer],
        questions: Sequence[Question],
        task: Task,
    ) -> None:
        """Score the answers; a question without one could not be asked."""
        self.contender = contender
        self._task = task
        self._answers = answers
        self._cost = _cost(contender)
        self.rows: list[Row] = [
            (question, values(question, self.answer(question), task, self._cost)) for question in questions
        ]

    def answer(self, question: Question) -> Answer:
        """Return the answer to a question."""
        return self._answers.get(question.id) or Answer(question.id, None, unavailable="not_asked")

    def was_asked(self, question: Question) -> bool:
        """Return whether the question could be asked."""
        return self.answer(question).was_asked

    def unasked(self, rows: Iterable[Row]) -> Unasked:
        """Return what could not be asked of these rows."""
        return Unasked.among(self.answer(question) for question, _ in rows)

    @cached_property
    def holdout(self) -> list[Row]:
        """Return the rows of the hold-out set."""
        return [row for row in self.rows if row[0].slice == HOLDOUT]

    @cached_property
    def overall(self) -> dict[str, Estimate]:
        """Return the scores on the hold-out set."""
        return self.scores(self.holdout) | {BALANCED: self._balanced()}

    @cached_property
    def groups(self) -> list[str]:
        """Return the label group of each row of the hold-out set."""
        return label_groups((question.reference for question, _ in self.holdout), self._task)

    def _balanced(self) -> Estimate:
        right = by_group([value["dominant_accuracy"] for _, value in self.holdout], self.groups)
        return mean_of_means(right, families_of(self.holdout), are_shares=True)

    def scores(self, rows: Sequence[Row]) -> dict[str, Estimate]:
        """Return the scores of these rows by metric, with latencies."""
        columns = {name: [value[name] for _, value in rows] for name in METRICS}
        found = means(columns, families_of(rows), shares=SHARES)
        times = [answer.latency_ms for question, _ in rows if (answer := self.answer(question)).was_given]
        return found | {name: quantile(times, part) for name, part in LATENCIES.items()}

    def document(self) -> dict[str, Any]:
        """Return the contender's part of the report."""
        rows, task = self.holdout, self._task
        by_label, by_length = defaultdict(list), defaultdict(list)
        for row in rows:
            assert row[0].reference is not None
            by_label[task.dominant(dict(row[0].reference))].append(row)
            by_length[_length(row[0].query)].append(row)
        lengths = [name for name in _LENGTH_NAMES if name in by_length]
        return {
            "title": self.contender.title,
            "endpoint": self.contender.endpoint,
            "unasked": self.unasked(self.rows).document(),
            "metrics": plain(self.overall),
            "by_label": {label: self._part(by_label[label]) for label in task.labels if label in by_label},
            "by_length": {name: self._part(by_length[name]) for name in lengths},
            "by_traffic": self._by_traffic(),
            "slices": self._slices(),
            "confusion": self._confusion(rows),
            "label_errors": self._label_errors(rows),
            "latency": self._latency(rows),
        }

    def _part(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {"rows": self.unasked(rows).asked, "metrics": plain(self.scores(rows))}

    def _by_traffic(self) -> dict[str, Any]:
        """Return the scores in which each query counts as often as it was asked; empty if none is known."""
        if all(question.count == 1 for question, _ in self.holdout):
            return {}
        return {"as often as asked": self._weighted(self.holdout)}

    def _weighted(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the scores of rows that count as often as they were asked."""
        weights = [question.count for question, _ in rows]
        columns = {name: [value[name] for _, value in rows] for name in METRICS}
        found = means(columns, families_of(rows), weights=weights, shares=SHARES)
        return {"rows": self.unasked(rows).asked, "metrics": plain(found)}

    def _slices(self) -> dict[str, Any]:
        by_slice: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row[0].slice != HOLDOUT:
                by_slice[row[0].slice].append(row)
        found = {}
        for name, rows in by_slice.items():
            part = self._weighted(rows) if name == TRAFFIC else self._part(rows)
            consistent = [self._is_consistent(question) for question, _ in rows]
            same = means({"consistency": consistent}, families_of(rows), shares=["consistency"])
            part["metrics"] |= plain(same)
            found[name] = part
        return found

    def _is_consistent(self, question: Question) -> float | None:
        """Return 1 if a variant's weights are within 0.10 of its original's, else 0.

        None for an original, and if one of both could not be asked.
        """
        mine, first = self.answer(question), self._answers.get(question.variant_of)
        if first is None or not (mine.was_asked and first.was_asked):
            return None
        if mine.weights is None or first.weights is None:
            return 0.0
        return float(max(distances(first.weights, mine.weights)) <= 0.10 + NEAR)

    def _confusion(self, rows: Iterable[Row]) -> dict[str, dict[str, int]]:
        """Return the confusion matrix: counts of answered labels by the reference's dominant label."""
        found: dict[str, Counter[str]] = {label: Counter() for label in self._task.labels}
        for question, _ in rows:
            if not self.was_asked(question):
                continue
            assert question.reference is not None
            weights, tied = self.answer(question).weights, self._task.dominants(dict(question.reference))
            given = self._task.dominant(dict(weights)) if weights else "invalid"
            # If the answered label is one of the reference's tied labels, it counts as right.
            found[given if given in tied else self._task.dominant(dict(question.reference))][given] += 1
        return {label: dict(counts) for label, counts in found.items()}

    def _label_errors(self, rows: Iterable[Row]) -> dict[str, list[float]]:
        """Return quantiles of the signed error, weight minus reference, by label."""
        errors: dict[str, list[float]] = {label: [] for label in self._task.labels}
        for question, _ in rows:
            weights, reference = self.answer(question).weights, question.reference
            if weights is None or reference is None:
                continue
            for label, found in errors.items():
                found.append(weights[label] - reference[label])
        return {
            label: [round(quantile(found, part).value, 4) for part in QUANTILES]
            for label, found in errors.items()
            if found
        }

    def _latency(self, rows: Iterable[Row]) -> dict[str, list[int]]:
        counts = [0] * len(LATENCY_EDGES)
        for question, _ in rows:
            answer = self.answer(question)
            if answer.was_given:
                counts[bisect_right(LATENCY_EDGES, answer.latency_ms) - 1] += 1
        return {"edges_ms": list(LATENCY_EDGES), "counts": counts}


def families_of(rows: Iterable[Row]) -> list[int]:
    """Return the family of each row; a question without one gets a number of its own."""
    return [
        question.family if question.family >= 0 else -1 - place for place, (question, _) in enumerate(rows)
    ]


def plain(scores: Mapping[str, Estimate]) -> dict[str, dict[str, float] | None]:
    """Return scores for JSON, with null for an unknown value."""
    return {name: asdict(found) if found.is_known else None for name, found in scores.items()}


def _cost(contender: Contender) -> Callable[[Answer], float | None]:
    """Return a function for an answer's cost in US dollars; it returns None if the price is unknown."""
    try:
        rate = Prices.load().rate(contender.model) if contender.model else None
    except PriceError:
        rate = None

    def cost(answer: Answer) -> float | None:
        return rate.usd(answer.input_tokens, answer.output_tokens) if rate else None

    return cost


_LENGTH_NAMES = (
    f"1 to {LENGTHS[0]} words",
    f"{LENGTHS[0] + 1} to {LENGTHS[1]} words",
    f"more than {LENGTHS[1]} words",
)


def _length(query: str) -> str:
    words = len(query.split())
    return _LENGTH_NAMES[sum(words > most for most in LENGTHS)]
