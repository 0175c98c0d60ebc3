"""95 % intervals by the bootstrap: what the scores might have been with other queries of the same kind.

The resamples are drawn from a fixed seed, so that the same answers always give the same intervals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

RESAMPLES = 1_000
# More rows are resampled in groups of nearly equal size: the mean of a group varies the less the larger it
# is, by just as much as there are fewer groups. The interval stays the same, and its time has a bound.
MOST_GROUPS = 1_000
CONFIDENCE = 0.95
# Standard deviations within which a normal distribution has that part.
_DEVIATIONS = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval; all NaN where no row has one. `rows` is how many have."""

    value: float
    low: float
    high: float
    rows: int

    @property
    def is_known(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)


UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)


def means(
    columns: Mapping[str, Sequence[float | None]], *, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """The mean of every column, and its interval.

    Args:
        columns: values by row, None where a row has none; all of the same length. They are resampled
            together, so that the difference of two columns can be a column of its own.
        resamples: how many are drawn.
    """
    rows = len(next(iter(columns.values()), ()))
    groups = min(rows, MOST_GROUPS)
    grouped = {name: _grouped(values, groups) for name, values in columns.items()}
    grouped = {name: (sums, counts) for name, (sums, counts) in grouped.items() if any(counts)}
    # Their rows needn't be counted in each resample.
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
    """The smallest value that at least this part of them does not exceed, and its interval.

    How many of a resample lie below a value is binomial, so that the bootstrap's interval has its ends at
    two of the values themselves; none needs to be drawn.
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
    """Takes the values at these places, some of them several times: itemgetter, of one place as well."""
    return itemgetter(*places) if len(places) > 1 else lambda values: (values[places[0]],)


def _grouped(values: Sequence[float | None], groups: int) -> tuple[list[float], list[int]]:
    """Sums and counts of so many groups, to which the rows are dealt out like cards."""
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
