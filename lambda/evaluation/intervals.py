"""Confidence intervals of means, shares and quantiles.

The rows of one family are much alike, so they are drawn together: a bootstrap of families. It is blind where
all rows have the same value, and too narrow where nearly all have. So the interval of a share is at least as
wide as the closed form for as many independent rows as the families count for. The resamples have a fixed
seed, so that equal answers give equal intervals.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from statistics import NormalDist

from distilled_router.release.power import LEVEL, effective_rows

RESAMPLES = 1_000
# More families than this are resampled in groups of nearly equal size, which bounds the time. The interval
# stays the same: group means vary less, in proportion to the smaller number of groups.
MOST_GROUPS = 1_000
CONFIDENCE = 0.95
# Confidence of the intervals that the gate tests: each end is a one-sided bound of 95 %.
BOUNDS = 1 - 2 * LEVEL


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its confidence interval over `rows` rows; all NaN if no row has a value."""

    value: float
    low: float
    high: float
    rows: int

    @property
    def is_known(self) -> bool:
        """Return whether there is a value."""
        return not math.isnan(self.value)


UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)

type Column = Sequence[float | None]
"""Values by row, None for a missing value."""


def means(
    columns: Mapping[str, Column],
    families: Sequence[int] = (),
    *,
    weights: Sequence[float] = (),
    shares: Collection[str] = (),
    paired_shares: Collection[str] = (),
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> dict[str, Estimate]:
    """Return the mean of every column with its confidence interval.

    Args:
        columns: values by row, all of the same length. Families are resampled with all columns, so that a
            column may hold paired differences.
        families: the family of each row; empty if each row is its own.
        weights: how much each row counts; empty if all count alike.
        shares: the columns of zeros and ones.
        paired_shares: the columns of differences of zeros and ones.
        resamples: the number of resamples.
        confidence: of the two-sided intervals.
    """
    sample = _Sample(columns, families, resamples, weights)
    found = {name: sample.mean(name, confidence) for name in columns}
    for names, widened in ((shares, _share), (paired_shares, _paired)):
        for name in names:
            if found[name].is_known:
                rows = _rows(columns[name], sample.families, sample.weights)
                found[name] = widened(found[name], columns[name], rows, confidence)
    return found


def mean_of_means(
    columns: Mapping[str, Column],
    families: Sequence[int] = (),
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the mean of the columns' means with its confidence interval; unknown if one has no value."""
    sample = _Sample(columns, families, resamples)
    parts = [sample.mean(name, confidence) for name in columns]
    if not parts or not all(part.is_known for part in parts):
        return UNKNOWN
    drawn = []
    for found in zip(*(sample.drawn[name] for name in columns), strict=True):
        known = [value for value in found if value is not None]
        drawn.append(math.fsum(known) / len(known) if known else None)
    value = math.fsum(part.value for part in parts) / len(parts)
    return _estimate(value, sum(part.rows for part in parts), drawn, confidence)


def quantile(values: Sequence[float], part: float) -> Estimate:
    """Return the quantile `part` (0 to 1) of the values with its confidence interval.

    The number of a resample's values below a value is binomial. So two of the values are the bounds of the
    bootstrap interval, and no resamples are needed.
    """
    ordered, count = sorted(values), len(values)
    if not ordered:
        return UNKNOWN
    spread = _deviations(CONFIDENCE) * math.sqrt(count * part * (1 - part))

    def at(place: float) -> float:
        return ordered[min(max(math.ceil(place) - 1, 0), count - 1)]

    middle = part * count
    return Estimate(at(middle), at(middle - spread), at(middle + spread), count)


class _Sample:
    """The rows of some columns, grouped by family, and the columns' means in every resample."""

    def __init__(
        self,
        columns: Mapping[str, Column],
        families: Sequence[int],
        resamples: int,
        weights: Sequence[float] = (),
    ) -> None:
        rows = len(next(iter(columns.values()), ()))
        self.families = list(families) if families else list(range(rows))
        self.weights = list(weights) if weights else [1] * rows
        self._rows = {name: sum(value is not None for value in values) for name, values in columns.items()}
        numbers: dict[int, int] = {}
        for family in self.families:
            numbers.setdefault(family, len(numbers))
        self._groups = min(len(numbers), MOST_GROUPS)
        places = [numbers[family] % self._groups for family in self.families]
        self._grouped = {name: self._by_group(values, places) for name, values in columns.items()}
        self.drawn = self._draw(resamples if rows else 0)

    def mean(self, name: str, confidence: float) -> Estimate:
        """Return a column's mean with its confidence interval."""
        if not (rows := self._rows[name]):
            return UNKNOWN
        sums, counts = map(math.fsum, self._grouped[name])
        return _estimate(sums / counts, rows, self.drawn[name], confidence)

    def _by_group(self, values: Column, places: Sequence[int]) -> tuple[list[float], list[float]]:
        """Return sums of values and of weights by group."""
        sums, counts = [0.0] * self._groups, [0.0] * self._groups
        for place, value, weight in zip(places, values, self.weights, strict=True):
            if value is not None:
                sums[place] += value * weight
                counts[place] += weight
        return sums, counts

    def _draw(self, resamples: int) -> dict[str, list[float | None]]:
        """Return the columns' means by resample, None where a resample has no value of a column."""
        drawn: dict[str, list[float | None]] = {name: [] for name in self._grouped}
        known = {name: found for name, found in self._grouped.items() if any(found[1])}
        # Columns with one value in every group: no need to sum the weights in each resample.
        whole = {name for name, (_, counts) in known.items() if all(count == 1 for count in counts)}
        source = random.Random(self._groups)  # noqa: S311  # a sample, no secret
        for _ in range(resamples):
            pick = _picker(source.choices(range(self._groups), k=self._groups))
            for name, (sums, counts) in known.items():
                count = self._groups if name in whole else sum(pick(counts))
                drawn[name].append(sum(pick(sums)) / count if count else None)
        return drawn


def _picker(places: Sequence[int]) -> Callable[[Sequence[float]], Sequence[float]]:
    """Return a function that picks the values at these places; itemgetter returns no tuple for one place."""
    return itemgetter(*places) if len(places) > 1 else lambda values: (values[places[0]],)


def _estimate(value: float, rows: int, drawn: Sequence[float | None], confidence: float) -> Estimate:
    ordered, tail = sorted(one for one in drawn if one is not None), (1 - confidence) / 2
    if not ordered:
        return Estimate(value, value, value, rows)
    last = len(ordered) - 1
    low, high = (
        ordered[min(int(tail * len(ordered)), last)],
        ordered[min(int((1 - tail) * len(ordered)), last)],
    )
    return Estimate(value, low, high, rows)


def _share(found: Estimate, values: Column, rows: float, confidence: float) -> Estimate:
    """Return a share's estimate, at least as wide as Wilson's interval; exact where all rows agree.

    `rows` is the number of effective rows.
    """
    del values
    if found.value in (0.0, 1.0):
        most = _exact(rows)
        return replace(found, low=found.value and 1 - most, high=found.value or most)
    square = _deviations(confidence) ** 2
    middle = (found.value + square / (2 * rows)) / (1 + square / rows)
    spread = math.sqrt(square * (found.value * (1 - found.value) + square / (4 * rows)) / rows)
    return _at_least(found, middle, spread / (1 + square / rows))


def _paired(found: Estimate, values: Column, rows: float, confidence: float) -> Estimate:
    """Return the estimate of a difference of two shares, at least as wide as its closed form.

    Closed form: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data", 2012. Exact where both are right on the same rows.
    """
    known = [value for value in values if value is not None]
    if not any(known):
        return replace(found, low=-_exact(rows), high=_exact(rows))
    more, less = (
        (rows * sum(sign * value > 0 for value in known) / len(known) + 1) / (rows + 2) for sign in (1, -1)
    )
    spread = _deviations(confidence) * math.sqrt((more + less - (more - less) ** 2) / (rows + 2))
    return _at_least(found, more - less, spread)


def _at_least(found: Estimate, middle: float, spread: float) -> Estimate:
    return replace(found, low=min(found.low, middle - spread), high=max(found.high, middle + spread))


def _exact(rows: float) -> float:
    """Return the one-sided 95 % bound of a share of which none was seen (Clopper and Pearson)."""
    return 1.0 - math.pow(LEVEL, 1 / rows)


def _rows(values: Column, families: Sequence[int], weights: Sequence[float]) -> float:
    """Return the effective rows of those that have a value: less if families or weights differ in size.

    For weights that is Kish's formula ("Survey Sampling", 1965).
    """
    known = [place for place, value in enumerate(values) if value is not None]
    given = [weights[place] for place in known]
    alike = math.fsum(given) ** 2 / (len(given) * math.fsum(weight * weight for weight in given))
    return effective_rows(Counter(families[place] for place in known).values()) * alike


def _deviations(confidence: float) -> float:
    """Return how many standard deviations around the mean hold this part of a normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
