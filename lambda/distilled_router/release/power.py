"""Predict what a hold-out set can show about a candidate, before anything is paid for.

The gate passes a candidate only if the one-sided 95 % bound of its paired difference to the live release is
within the non-inferiority margin. So a candidate that is worse by the margin passes in 5 % of the cases, and
one that is equal may be refused: how often depends on the hold-out set's rows and on how often both models
differ. All figures are normal approximations.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from statistics import NormalDist

# One-sided error of the gate's tests: how often a candidate passes that is worse by exactly the margin.
LEVEL = 0.05
# Share of the evaluations in which an equal candidate should pass, and a loss be found.
POWER = 0.80
# Part of the hold-out rows that one of two models answers rightly and the other wrongly. Measured with the
# stand-in's students: 1 to 6 % if they saw different parts of data/training.jsonl, and 1 to 2 % on 1,000 rows
# of TVR. Students of the 162 labels of a real teacher, 50 rows each, differ in 10 to 30 %.
DISCORDANT_SHARE = 0.05
# Correlation of paired differences within a family, measured on data/holdout.jsonl: 0.1 to 0.2 for the
# dominant label, 0.3 for the absolute error.
FAMILY_CORRELATION = 0.3
# Standard deviation of the difference of two models' errors in a row. Measured on data/holdout.jsonl with
# the stand-in's students: 0.02 if each saw 1,100 random rows of data/training.jsonl, 0.05 with 500, 0.08 with
# 200.
ERROR_DEVIATION = 0.05

_NORMAL = NormalDist()
_DEVIATIONS = _NORMAL.inv_cdf(1 - LEVEL)
# Losses are computed to this precision.
_STEP = 0.001
# More rows than any hold-out set has.
_MOST_ROWS = 1 << 20


def effective_rows(families: Iterable[int]) -> float:
    """Return the number of independent rows that say as much as families of these sizes.

    Example:
        >>> effective_rows([1] * 100)
        100.0
        >>> round(effective_rows([10] * 10), 1)
        27.0
    """
    sizes = list(families)
    rows = sum(sizes)
    if not rows:
        return 0.0
    mean_size = sum(size * size for size in sizes) / rows
    return rows / (1 + (mean_size - 1) * FAMILY_CORRELATION)


def null_variance(more: float, less: float, loss: float) -> float:
    """Return a row's variance of the difference of two shares if the true loss were `loss`.

    It is that of Tango's score test (1998), with the likeliest parts of better and worse rows.

    Args:
        more, less: parts of the rows in which only the first of both is right, and only the second.
        loss: of the first, as a part of the rows.
    """
    middle = (2 - less + more) * loss - more - less
    better = (math.sqrt(middle * middle + 8 * more * loss * (1 - loss)) - middle) / 4
    return max(2 * better + loss * (1 - loss), 0.0)


def accepted(rows: float, loss: float, margin: float, discordance: float = DISCORDANT_SHARE) -> float:
    """Return the probability that a share that is worse by `loss` is accepted as not worse.

    Args:
        rows: effective rows of the hold-out set.
        loss: the candidate's true loss; 0 for an equal candidate.
        margin: the non-inferiority margin.
        discordance: part of the rows that one of both answers rightly and the other wrongly.

    Example:
        >>> round(accepted(200, loss=0.05, margin=0.05), 2)
        0.05
    """
    if rows <= 0:
        return 0.0
    # At least `loss` of the rows differ between two models that differ by `loss`.
    whole = max(discordance, abs(loss))
    needed = _DEVIATIONS * math.sqrt(null_variance((whole - loss) / 2, (whole + loss) / 2, margin) / rows)
    error = math.sqrt((whole - loss * loss) / rows)
    return _NORMAL.cdf((margin - loss - needed) / error) if error else float(loss + needed <= margin)


def passes(
    rows: float,
    margin: float,
    error_margin: float,
    discordance: float = DISCORDANT_SHARE,
    deviation: float = ERROR_DEVIATION,
) -> float:
    """Return the probability that an equal candidate passes all comparisons with one release.

    Args:
        rows: effective rows of the hold-out set.
        margin: the non-inferiority margin of shares. With too few rows for it, even a candidate that answers
            like the release is refused.
        error_margin: the margin of the mean absolute error.
        discordance: part of the rows that one of both answers rightly and the other wrongly.
        deviation: standard deviation of the difference of both errors.

    Example:
        >>> passes(50, margin=0.05, error_margin=0.02)
        0.0
        >>> round(passes(200, margin=0.05, error_margin=0.02), 2)
        0.87
    """
    if _are_too_few(rows, margin):
        return 0.0
    error = _NORMAL.cdf(error_margin * math.sqrt(rows) / deviation - _DEVIATIONS) if deviation else 1.0
    return accepted(rows, 0.0, margin, discordance) * error


def _are_too_few(rows: float, margin: float) -> bool:
    """Return whether even a candidate that answers like the release is refused."""
    return rows <= 0 or 1 - math.pow(LEVEL, 1 / rows) > margin


def refused_loss(
    rows: float, margin: float, discordance: float = DISCORDANT_SHARE, power: float = POWER
) -> float:
    """Return the smallest loss of a share that is refused with probability `power`; 1.0 if none is."""
    losses = (step * _STEP for step in range(round(1 / _STEP)))
    return next((loss for loss in losses if 1 - accepted(rows, loss, margin, discordance) >= power), 1.0)


def needed_rows(margin: float, error_margin: float, power: float = POWER) -> int:
    """Return the effective rows with which an equal candidate passes with probability `power`."""
    return bisect_left(range(_MOST_ROWS), power, key=lambda rows: passes(rows, margin, error_margin))


def described(
    rows: float,
    margin: float,
    error_margin: float,
    discordance: float = DISCORDANT_SHARE,
    deviation: float = ERROR_DEVIATION,
) -> str:
    """Return in words what a hold-out set can show.

    Example:
        >>> described(200, 0.05, 0.02)
        '200 independent rows: an equal candidate passes in 87 % of evaluations, one worse by 5 points in 5 %;
        a loss of 3.5 points is refused in 80 %'
        >>> described(40, 0.05, 0.02)
        '40 independent rows: too few for any candidate to pass with a margin of 5 points'
    """
    if _are_too_few(rows, margin):
        return (
            f"{rows:,.0f} independent rows: too few for any candidate to pass with a margin of "
            f"{100 * margin:.3g} points"
        )
    equal = passes(rows, margin, error_margin, discordance, deviation)
    worse = accepted(rows, margin, margin, discordance)
    return (
        f"{rows:,.0f} independent rows: an equal candidate passes in {100 * equal:.0f} % of evaluations, "
        f"one worse by {100 * margin:.3g} points in {100 * worse:.0f} %; a loss of "
        f"{100 * refused_loss(rows, margin, discordance):.2g} points is refused in {100 * POWER:.0f} %"
    )
