"""What a trained head answers to an evaluation's questions: its calibration's cases, and its report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from distilled_router.cost.prices import PriceError, Prices
from distilled_router.head.calibration import Calibration, Case
from distilled_router.head.model import Head
from distilled_router.task.task import Task
from evaluation.metrics import Answer, Question, distances, divergence
from evaluation.questions import HOLDOUT
from evaluation.scored import families_of

HEAD = "head.json"

type Given = tuple[Mapping[str, float], float]
"""The weights and the risk of a head's answer."""


@dataclass(frozen=True)
class Margins:
    """How much larger the mean absolute error may become, and how much smaller the share of right labels."""

    error: float
    dominant: float


class Tested:
    """A head's answers to all questions, beside the candidate's."""

    def __init__(
        self, head: Head, questions: Sequence[Question], answers: Mapping[str, Answer], task: Task
    ) -> None:
        """Let the head answer all questions."""
        self._questions, self._answers, self._task = questions, answers, task
        self._given: dict[str, Given] = {}
        for question in questions:
            found = head.answer(question.query)
            self._given[question.id] = found.weights, found.risk

    @cached_property
    def _holdout(self) -> list[Question]:
        """Return the hold-out questions that the candidate was asked."""
        return [
            question
            for question in self._questions
            if question.slice == HOLDOUT
            and question.reference is not None
            and question.id in self._answers
            and self._answers[question.id].was_asked
        ]

    def cases(self) -> Iterator[Case]:
        """Yield what the threshold is chosen from."""
        for question, family in zip(self._holdout, _families(self._holdout), strict=True):
            weights, risk = self._given[question.id]
            student = self._answers[question.id].weights
            yield Case(
                family=family,
                risk=risk,
                head_error=_error(question, weights),
                student_error=None if student is None else _error(question, student),
                head_right=self._is_right(question, weights),
                student_right=student is not None and self._is_right(question, student),
            )

    def document(self, found: Calibration, margins: Margins, model: str) -> dict[str, Any]:
        """Return the report's part on the head's answers.

        Args:
            found: the calibration by this head's cases.
            margins: those of the calibration.
            model: of the candidate, for its price.
        """
        answers = [self._answers[question.id] for question in self._holdout]
        students = [(one, answer.weights) for one, answer in zip(self._holdout, answers, strict=True)]
        given = [(one, self._given[one.id][0]) for one in self._holdout]
        return {
            "threshold": found.threshold,
            "obstacle": found.obstacle,
            "coverage": found.coverage,
            "margins": asdict(margins),
            "bounds": {"error": found.error_bound, "dominant": found.dominant_bound},
            "holdout": {"rows": found.rows, "families": found.families, "needed": found.needed},
            "table": [asdict(one) for one in found.table],
            "head": {
                "error": _mean(_error(*pair) for pair in given),
                "dominant": _mean(float(self._is_right(*pair)) for pair in given),
                "kl_divergence": _divergence(given),
            },
            "student": {
                "error": found.student_error,
                "dominant": found.student_dominant if answers else None,
                "kl_divergence": _divergence(students),
                **_use(answers, model),
            },
            "slices": self._slices(found.threshold) if found.threshold is not None else {},
        }

    def _slices(self, threshold: float) -> dict[str, Any]:
        """Return for each slice what the head would answer first, and how much of it is wrong."""
        by_slice: dict[str, list[Question]] = defaultdict(list)
        for question in self._questions:
            by_slice[question.slice].append(question)
        return {name: self._slice(questions, threshold) for name, questions in by_slice.items()}

    def _slice(self, questions: Sequence[Question], threshold: float) -> dict[str, Any]:
        accepted = [question for question in questions if self._given[question.id][1] <= threshold]
        known = [question for question in accepted if question.reference is not None]
        return {
            "questions": len(questions),
            "silent": 1 - len(accepted) / len(questions),
            "accepted": len(accepted),
            "judged": len(known),
            "wrong": sum(not self._is_right(question, self._given[question.id][0]) for question in known),
        }

    def _is_right(self, question: Question, weights: Mapping[str, float]) -> bool:
        assert question.reference is not None
        return self._task.is_dominant_right(question.reference, weights)


def _families(questions: Sequence[Question]) -> list[int]:
    return families_of((question, {}) for question in questions)


def _error(question: Question, weights: Mapping[str, float]) -> float:
    assert question.reference is not None
    found = distances(question.reference, weights)
    return math.fsum(found) / len(found)


def _divergence(pairs: Iterable[tuple[Question, Mapping[str, float] | None]]) -> float | None:
    """Return the mean divergence from the references, over valid answers."""
    return _mean(
        divergence(question.reference, weights)
        for question, weights in pairs
        if weights is not None and question.reference is not None
    )


def _use(answers: Sequence[Answer], model: str) -> dict[str, float | None]:
    """Return what an answer of the candidate takes on average: time, tokens, and list prices for them."""
    used = [answer for answer in answers if answer.input_tokens > 0]
    try:
        rate = Prices.load().rate(model) if model else None
    except PriceError:
        rate = None
    return {
        "latency_ms": _mean(answer.latency_ms for answer in answers if answer.was_given),
        "input_tokens": _mean(answer.input_tokens for answer in used),
        "output_tokens": _mean(answer.output_tokens for answer in used),
        "input_usd_per_million": rate.input if rate else None,
        "output_usd_per_million": rate.output if rate else None,
    }


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
