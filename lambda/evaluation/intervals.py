"""95 % confidence intervals of means and quantiles, by the bootstrap.

The resamples have a fixed seed, so that equal answers give equal intervals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

RESAMPLES = 1_000
# More rows than this are resampled in groups of nearly equal size, which bounds the time. The interval stays
# the same: group means vary less, in proportion to the smaller number of groups.
MOST_GROUPS = 1_000
CONFIDENCE = 0.95
# Standard deviations on either side of the mean that hold CONFIDENCE of a normal distribution.
_DEVIATIONS = 1.959963984540054


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


def means(
    columns: Mapping[str, Sequence[float | None]], *, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Return the mean of every column with its confidence interval.

    Args:
        columns: values by row, None for a missing value; all of the same length. Rows are resampled with all
            columns, so that a column may hold paired differences.
        resamples: the number of resamples.
    """
    rows = len(next(iter(columns.values()), ()))
    groups = min(rows, MOST_GROUPS)
    grouped = {name: _grouped(values, groups) for name, values in columns.items()}
    grouped = {name: (sums, counts) for name, (sums, counts) in grouped.items() if any(counts)}
    # Columns with one value in every group: no need to count rows in each resample.
    whole = {name for name, (_, counts) in grouped.items() if all(count == 1 for count in counts)}
    drawn: dict[str, list[float]] = {name: [] for name in grouped}
    source = random.Random(rows)  # noqa: S311  # a sample, no secret
    for _ in range(resamples if rows else 0):
        pick = _picker(source.choices(range(groups), k=groups))
        for name, (sums, counts) in grouped.items():
            if count := groups if name in whole else sum(pick(counts)):
                drawn[name].append(sum(pick(sums)) / count)
    return {
        name: _estimate(*grouped[name], sorted(drawn[name])) if name in grouped else UNKNOWN
        for name in columns
    }


def quantile(values: Sequence[float], part: float) -> Estimate:
    """Return the quantile `part` (0 to 1) of the values with its confidence interval.

    The number of a resample's values below a value is binomial. So two of the values are the bounds of the
    bootstrap interval, and no resamples are needed.
    """
    ordered, count = sorted(values), len(values)
    if not ordered:
        return UNKNOWN
    spread = _DEVIATIONS * math.sqrt(count * part * (1 - part))

    def at(place: float) -> float:
        return ordered[min(max(math.ceil(place) - 1, 0), count - 1)]

    middle = part * count
    return Estimate(at(middle), at(middle - spread), at(middle + spread), count)


def _picker(places: Sequence[int]) -> Callable[[Sequence[float]], Sequence[float]]:
    """Return a function that picks the values at these places; itemgetter returns no tuple for one place."""
    return itemgetter(*places) if len(places) > 1 else lambda values: (values[places[0]],)


def _grouped(values: Sequence[float | None], groups: int) -> tuple[list[float], list[int]]:
    """Return sums and counts of values by group; row i is in group i modulo `groups`."""
    sums, counts = [0.0] * groups, [0] * groups
    for place, value in enumerate(values):
        if value is not None:
            sums[place % groups] += value
            counts[place % groups] += 1
    return sums, counts


def _estimate(sums: Sequence[float], counts: Sequence[int], drawn: Sequence[float]) -> Estimate:
    rows, tail = sum(counts), (1 - CONFIDENCE) / 2
    low, high = drawn[int(tail * len(drawn))], drawn[min(int((1 - tail) * len(drawn)), len(drawn) - 1)]
    return Estimate(math.fsum(sums) / rows, low, high, rows)
