"""Confidence intervals of means, shares and quantiles, in closed form.

The rows of one family are much alike, so they count as fewer independent rows: as many as the variance
between families shows (Korn and Graubard, "Confidence intervals for proportions with small expected number of
positive counts estimated from survey data", 1998), but no more than the families' sizes let expect, since the
variance shows little where few rows differ. For that many rows the intervals are Wilson's for a share,
Tango's for a paired difference of shares, and the normal one for other means, with two more rows at the ends
of the values, without which the variance of rare values is too small.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from distilled_router.release.power import LEVEL, effective_rows, null_variance

CONFIDENCE = 0.95
# Confidence of the intervals that the gate tests: each end is a one-sided bound of 95 %.
BOUNDS = 1 - 2 * LEVEL
# Bisections, after which a bound is known to nine digits.
_HALVINGS = 30


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


@dataclass(frozen=True, slots=True)
class _Part:
    """A column's known values.

    Attributes:
        value: their mean.
        variance: of one row.
        rows: as many independent rows say as much.
        known: the number of values.
        least, most: the ends of what is possible or was seen.
        errors: each family's share of the mean's error; their sum is 0.
    """

    value: float
    variance: float
    rows: float
    known: int
    least: float
    most: float
    errors: Mapping[int, float]

    def counted_as(self, rows: float) -> float:
        """Return the variance of the mean of so many independent rows, and two more at both ends."""
        ends = (self.least - self.value) ** 2 + (self.most - self.value) ** 2
        return (self.variance * rows + ends) / (rows + 2) / rows


def means(
    columns: Mapping[str, Column],
    families: Sequence[int] = (),
    *,
    weights: Sequence[float] = (),
    shares: Collection[str] = (),
    paired: Collection[str] = (),
    confidence: float = CONFIDENCE,
) -> dict[str, Estimate]:
    """Return the mean of every column with its confidence interval.

    Args:
        columns: values by row, all of the same length.
        families: the family of each row; empty if each row is its own.
        weights: how much each row counts; empty if all count alike.
        shares: the columns of zeros and ones, or of their differences.
        paired: the columns of paired differences.
        confidence: of the two-sided intervals.
    """
    found = {}
    for name, values in columns.items():
        part = _part(values, families, weights, is_share=name in shares, is_paired=name in paired)
        if part is None:
            found[name] = UNKNOWN
        elif name not in shares:
            found[name] = _mean([part], confidence)
        elif name in paired:
            found[name] = _difference(part, values, confidence)
        else:
            found[name] = _share(part, confidence)
    return found


def mean_of_means(
    columns: Mapping[str, Column],
    families: Sequence[int] = (),
    *,
    are_shares: bool = False,
    are_paired: bool = False,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the mean of the columns' means with its confidence interval; unknown if one has no value."""
    parts = [
        _part(values, families, (), is_share=are_shares, is_paired=are_paired) for values in columns.values()
    ]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return UNKNOWN
    found = _mean(known, confidence)
    if are_shares and not are_paired:
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
    return found


def quantile(values: Sequence[float], part: float) -> Estimate:
    """Return the quantile `part` (0 to 1) of the values with its confidence interval.

    The number of a sample's values below the true quantile is binomial, so two of the values are the bounds.
    """
    ordered, count = sorted(values), len(values)
    if not ordered:
        return UNKNOWN
    spread = _deviations(CONFIDENCE) * math.sqrt(count * part * (1 - part))

    def at(place: float) -> float:
        return ordered[min(max(math.ceil(place) - 1, 0), count - 1)]

    middle = part * count
    return Estimate(at(middle), at(middle - spread), at(middle + spread), count)


def _part(
    values: Column, families: Sequence[int], weights: Sequence[float], *, is_share: bool, is_paired: bool
) -> _Part | None:
    """Return a column's mean and variance, and for how many independent rows they stand."""
    rows = [
        (value, families[place] if families else place, weights[place] if weights else 1.0)
        for place, value in enumerate(values)
        if value is not None
    ]
    if not rows:
        return None
    whole = math.fsum(weight for _, _, weight in rows)
    mean = math.fsum(value * weight for value, _, weight in rows) / whole
    # Shares of all or none are recognised by their value, which a sum of weights may miss by a rounding.
    if all(value == rows[0][0] for value, _, _ in rows):
        mean = rows[0][0]
    variance = math.fsum(weight * (value - mean) ** 2 for value, _, weight in rows) / whole
    errors: dict[int, float] = defaultdict(float)
    for value, family, weight in rows:
        errors[family] += weight * (value - mean) / whole
    # Rows of different weights say as much as so many of equal ones: Kish, "Survey Sampling", 1965.
    alike = whole * whole / (len(rows) * math.fsum(weight * weight for _, _, weight in rows))
    independent = effective_rows(Counter(family for _, family, _ in rows).values()) * alike
    seen = max(abs(value) for value, _, _ in rows)
    least, most = min(value for value, _, _ in rows), max(value for value, _, _ in rows)
    if is_paired:
        least, most = -seen, seen
    elif is_share:
        least, most = 0.0, 1.0
    part = _Part(mean, variance, independent, len(rows), least, most, errors)
    between = _between_families([part])
    return replace(part, rows=min(independent, variance / between)) if between and variance else part


def _between_families(parts: Sequence[_Part]) -> float:
    """Return the variance of the mean of the parts' means as it shows between families; 0 for one family."""
    together: dict[int, float] = defaultdict(float)
    for part in parts:
        for family, error in part.errors.items():
            together[family] += error / len(parts)
    count = len(together)
    return count / (count - 1) * math.fsum(one * one for one in together.values()) if count > 1 else 0.0


def _mean(parts: Sequence[_Part], confidence: float) -> Estimate:
    """Return the mean of the parts' means. A family with rows in several parts makes it less certain."""
    value, count = math.fsum(part.value for part in parts) / len(parts), len(parts)
    alone = math.fsum(part.variance / part.rows for part in parts) / count**2
    more = max(_between_families(parts) / alone, 1.0) if alone else 1.0
    variance = math.fsum(part.counted_as(part.rows / more) for part in parts) / count**2
    spread = _deviations(confidence) * math.sqrt(variance)
    return Estimate(value, value - spread, value + spread, sum(part.known for part in parts))


def _share(part: _Part, confidence: float) -> Estimate:
    """Return a share with Wilson's interval; exact where all rows agree."""
    value, rows = part.value, part.rows
    if value in (0.0, 1.0):
        most = _exact(rows)
        return Estimate(value, value and 1 - most, value or most, part.known)
    square = _deviations(confidence) ** 2
    middle = (value + square / (2 * rows)) / (1 + square / rows)
    spread = math.sqrt(square * (part.variance + square / (4 * rows)) / rows) / (1 + square / rows)
    return Estimate(value, middle - spread, middle + spread, part.known)


def _difference(part: _Part, values: Column, confidence: float) -> Estimate:
    """Return a difference of two shares with its score interval; exact where none differ.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", 1998.
    """
    more, less = (sum(value == sign for value in values) / part.known for sign in (1, -1))
    if not (more or less):
        return Estimate(0.0, -_exact(part.rows), _exact(part.rows), part.known)
    low, high = -_most_lost(more, less, part.rows, confidence), _most_lost(less, more, part.rows, confidence)
    return Estimate(part.value, low, high, part.known)


def _most_lost(more: float, less: float, rows: float, confidence: float) -> float:
    """Return the largest loss that such parts of better and worse rows don't contradict."""
    deviations = _deviations(confidence)
    low, high = less - more, 1.0
    for _ in range(_HALVINGS):
        loss = (low + high) / 2
        error = math.sqrt(null_variance(more, less, loss) / rows)
        low, high = (low, loss) if loss - (less - more) > deviations * error else (loss, high)
    return high


def _exact(rows: float) -> float:
    """Return the one-sided 95 % bound of a share of which none was seen (Clopper and Pearson)."""
    return 1.0 - math.pow(LEVEL, 1 / rows)


def _deviations(confidence: float) -> float:
    """Return how many standard deviations around the mean hold this part of a normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
