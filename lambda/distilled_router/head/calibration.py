"""Choose the threshold below which the head answers before the student, with a promise.

The promise: with 95 % confidence, answers by the head below the threshold make the mean absolute error of all
answers larger by at most one margin, and the share of right dominant labels smaller by at most another.

Thresholds are tested in a fixed sequence, that of the smallest coverage first, up to the first that fails
(Angelopoulos et al., "Learn then Test: Calibrating predictive algorithms to achieve risk control", 2021). So
no test needs a correction for the others; nor do the two losses, which must both be within their margins.

Each test bounds a mean over families, since the rows of one are much alike. Where no loss was seen, or one, a
t-test's bound is too small: with 126 rows it broke the promise in 15 % of redraws. So one family is added
that loses as much as is possible, and the bound is Gaffke's ("Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable", 2005): the families' weights are drawn at random,
uniform over all that sum to 1. It is that of Clopper and Pearson where families lose all or nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

LEVEL = 0.05
"""How often the promise may be broken, at most."""
MOST_RISK = 0.05
"""No threshold is larger. Above it, a head accepts many texts that are no query, and injections, even where
the hold-out set, which has neither, allows a larger one."""

# Coverages that are tested: 5 %, 10 %, ..., 100 %; and that of the largest risk.
_STEPS = 20
_DEVIATIONS = NormalDist().inv_cdf(1 - LEVEL)
# More families than any hold-out set has.
_MOST_FAMILIES = 1 << 16


@dataclass(frozen=True, slots=True)
class Case:
    """One hold-out query, answered by head and student.

    Attributes:
        family: rows of one family are much alike.
        risk: the head's own, by which it is accepted; infinite for a query that it never answers.
        head_error, student_error: mean absolute errors. That of the student is None if its output was
            invalid: there is no difference then, and its dominant label counts as wrong.
        head_right, student_right: whether the dominant label is right.
    """

    family: int
    risk: float
    head_error: float
    student_error: float | None
    head_right: bool
    student_right: bool


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a threshold would do.

    Attributes:
        coverage: share of the queries that the head would answer.
        threshold: the largest risk among them.
        head_error, head_dominant: mean absolute error and share of right dominant labels of its answers.
        mixed_error, mixed_dominant: the same of all answers, the student's included.
        error_bound: one-sided 95 % bound of how much larger the mean absolute error of all answers becomes.
        dominant_bound: the same of how much smaller the share of right dominant labels becomes.
        ok: whether this threshold and all smaller ones keep both margins, and it is at most `MOST_RISK`.
    """

    coverage: float
    threshold: float
    head_error: float
    head_dominant: float
    mixed_error: float
    mixed_dominant: float
    error_bound: float
    dominant_bound: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """The threshold, and what it was chosen from.

    Attributes:
        threshold: the largest risk at which the head answers first; None if no threshold is ok.
        coverage: share of the queries that the head answers; 0 without a threshold.
        error_bound, dominant_bound: those at the threshold; None without one.
        table: all thresholds in the order of the tests, also those after the first that failed.
        rows, families: of the hold-out set.
        needed: families without any loss that are needed for a threshold.
        student_error, student_dominant: of the student alone; the error is None without a valid answer.
    """

    threshold: float | None
    coverage: float
    error_bound: float | None
    dominant_bound: float | None
    table: tuple[Coverage, ...]
    rows: int
    families: int
    needed: int
    student_error: float | None
    student_dominant: float

    @property
    def obstacle(self) -> str:
        """Return why there is no threshold, and what to do, in sentences; empty if there is one."""
        if self.threshold is not None:
            return ""
        if not self.rows:
            return "The student answered none of the hold-out queries, so nothing can be promised."
        if self.families < self.needed:
            return (
                f"The hold-out set has {self.families:,} families of similar queries; its margins need at "
                f"least {self.needed:,}, even if the head loses nothing. Add hold-out queries that differ "
                "from the others."
            )
        if not self.table:
            return "The head leaves all hold-out queries to the student: each is longer than trained ones."
        least = self.table[0]
        surest = f"the surest {least.coverage:.0%} of the hold-out queries"
        if least.threshold > MOST_RISK:
            return (
                f"The risk of {surest} is up to {least.threshold:.3f}; the largest allowed is {MOST_RISK:g}. "
                "Add training labels like them."
            )
        return (
            f"Even for {surest}, a bound exceeds its margin: error {least.error_bound:.3f}, dominant label "
            f"{100 * least.dominant_bound:.2f} points. Add training labels, or hold-out queries."
        )


def calibrate(cases: Iterable[Case], margin_error: float, margin_dominant: float, labels: int) -> Calibration:
    """Return the largest threshold up to `MOST_RISK` that keeps both margins with 95 % confidence.

    Args:
        cases: one for each hold-out query that the student was asked.
        margin_error: how much larger the mean absolute error of all answers may become.
        margin_dominant: how much smaller the share of right dominant labels may become.
        labels: the number of labels, which limits how large an error can be.
    """
    ordered = sorted(cases, key=lambda case: case.risk)
    table: list[Coverage] = []
    margins, ok = (margin_error, margin_dominant), True
    for found, bounds in _thresholds(ordered, labels):
        ok = ok and all(bound <= margin for bound, margin in zip(bounds, margins, strict=True))
        ok = ok and found["threshold"] <= MOST_RISK
        table.append(Coverage(**found, error_bound=bounds[0], dominant_bound=bounds[1], ok=ok))
    best = next((one for one in reversed(table) if one.ok), None)
    errors = [case.student_error for case in ordered if case.student_error is not None]
    return Calibration(
        threshold=best.threshold if best else None,
        coverage=best.coverage if best else 0.0,
        error_bound=best.error_bound if best else None,
        dominant_bound=best.dominant_bound if best else None,
        table=tuple(table),
        rows=len(ordered),
        families=len({case.family for case in ordered}),
        needed=needed_families(margin_error, margin_dominant, labels),
        student_error=fmean(errors) if errors else None,
        student_dominant=fmean(case.student_right for case in ordered) if ordered else 0.0,
    )


def needed_families(margin_error: float, margin_dominant: float, labels: int) -> int:
    """Return how many families without any loss suffice for both margins. With fewer, no threshold can.

    Example:
        >>> needed_families(0.02, 0.03, labels=4)
        99
    """

    def suffice(families: int) -> bool:
        none = dict.fromkeys(range(families), (0.0, 1))
        return (
            upper_bound(none, _worst_error(labels)) <= margin_error
            and upper_bound(none, 1.0) <= margin_dominant
        )

    most = 1
    while most < _MOST_FAMILIES and not suffice(most):
        most *= 2
    return bisect_left(range(most), True, lo=1, key=suffice)


def upper_bound(families: Mapping[int, tuple[float, int]], worst: float) -> float:
    """Return the one-sided 95 % bound of the mean loss of a row.

    It is the larger one of two: with all rows alike, and with all families alike. The first is too small for
    families of very different sizes, of which the largest may happen to be missing; the second says nothing
    about losses that large families have more often.

    Args:
        families: total loss and number of rows of each family.
        worst: the largest loss of a row that is possible.
    """
    if not families:
        return worst
    size = sum(rows for _, rows in families.values()) / len(families)
    by_rows = [(total / size, rows / size) for total, rows in families.values()]
    by_families = [(total / rows, 1.0) for total, rows in families.values()]
    return max(_bound([*each, (worst, 1.0)]) for each in (by_rows, by_families))


def _bound(losses: Sequence[tuple[float, float]]) -> float:
    """Return Gaffke's bound of a mean by losses and weights, of which the last is the worst possible one.

    It is a quantile of the mean under random weights, here by the Cornish-Fisher expansion with the mean's
    first four cumulants.
    """
    count, worst = len(losses), losses[-1][0]
    mean = sum(loss for loss, _ in losses) / sum(weight for _, weight in losses)
    errors = [loss - mean * weight for loss, weight in losses]
    squares = [error * error for error in errors]
    two, four = sum(squares), sum(square * square for square in squares)
    three = sum(square * error for square, error in zip(squares, errors, strict=True))
    if not two:
        return worst  # every row loses as much as is possible
    variance = two / (count * (count + 1))
    third = 2 * three / (count * (count + 1) * (count + 2))
    fourth = (3 * two * two + 6 * four) / (count * (count + 1) * (count + 2) * (count + 3))
    return min(mean + math.sqrt(variance) * _quantile(third / variance**1.5, fourth / variance**2 - 3), worst)


def _quantile(skewness: float, kurtosis: float) -> float:
    """Return the 95 % quantile of a standardised distribution that is nearly normal."""
    z = _DEVIATIONS
    return (
        z + (z**2 - 1) * skewness / 6 + (z**3 - 3 * z) * kurtosis / 24 - (2 * z**3 - 5 * z) * skewness**2 / 36
    )


def _worst_error(labels: int) -> float:
    """Return the largest mean absolute error between two vectors of weights: all weight on other labels."""
    return 2 / labels


class _Losses:
    """Losses by family while the head answers more and more queries.

    `rows` are all rows that have a loss; those that the student still answers lose nothing.
    """

    def __init__(self, families: Iterable[int], worst: float) -> None:
        self._worst = worst
        self._totals: dict[int, float] = defaultdict(float)
        self._rows: dict[int, int] = defaultdict(int)
        for family in families:
            self._rows[family] += 1

    def add(self, family: int, loss: float) -> None:
        """Note the loss of a query that the head answers."""
        self._totals[family] += loss

    def bound(self) -> float:
        """Return the bound of the mean loss of all rows."""
        families = {family: (self._totals[family], rows) for family, rows in self._rows.items()}
        return upper_bound(families, self._worst)


def _thresholds(
    ordered: Sequence[Case], labels: int
) -> Iterator[tuple[dict[str, float], tuple[float, float]]]:
    """Yield each threshold with its figures and the bounds of both losses; equal risks have one threshold."""
    paired = [case for case in ordered if case.student_error is not None]
    errors = _Losses((case.family for case in paired), _worst_error(labels))
    dominants = _Losses((case.family for case in ordered), 1.0)
    answerable = bisect_left(ordered, math.inf, key=lambda case: case.risk)
    steps = {-(-step * len(ordered) // _STEPS) for step in range(1, _STEPS + 1)}
    steps.add(bisect_right(ordered, MOST_RISK, key=lambda case: case.risk))
    begin = 0
    for place in sorted(min(step, answerable) for step in steps):
        if place <= begin:
            continue
        threshold = ordered[place - 1].risk
        end = bisect_right(ordered, threshold, key=lambda case: case.risk)
        for case in ordered[begin:end]:
            dominants.add(case.family, case.student_right - case.head_right)
            if case.student_error is not None:
                errors.add(case.family, case.head_error - case.student_error)
        yield _figures(ordered, end), (errors.bound(), dominants.bound())
        begin = end


def _figures(ordered: Sequence[Case], end: int) -> dict[str, float]:
    """Return what is shown of a threshold below which the head answers the first `end` cases."""
    heads, students = ordered[:end], ordered[end:]
    head_errors, head_right = [case.head_error for case in heads], [case.head_right for case in heads]
    student_errors = [case.student_error for case in students if case.student_error is not None]
    return {
        "coverage": end / len(ordered),
        "threshold": ordered[end - 1].risk,
        "head_error": fmean(head_errors),
        "head_dominant": fmean(head_right),
        "mixed_error": fmean(head_errors + student_errors),
        "mixed_dominant": fmean(head_right + [case.student_right for case in students]),
    }
