"""What a hold-out set can show about a candidate, known before anything is paid for.

The gate passes a candidate only if the one-sided 95 % bound of its paired difference to the live release is
within the non-inferiority margin. So a candidate that is worse by the margin passes in 5 % of the cases, and
one that is equal may be refused: how often depends on the hold-out set's rows and on how often both models
differ. All figures are normal approximations for shares, such as dominant-label accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

# One-sided error of the gate's tests: how often a candidate passes that is worse by exactly the margin.
LEVEL = 0.05
# Part of the cases in which a hold-out set should show what it is to show.
POWER = 0.80
# Part of the hold-out rows that one of two models answers rightly and the other wrongly. Measured with the
# stand-in's students: 1 to 6 % if they saw different parts of data/training.jsonl, and 1 to 2 % on 1,000 rows
# of TVR. Students of the 162 labels of a real teacher, 50 rows each, differ in 10 to 30 %.
DISCORDANT_SHARE = 0.05
# Correlation of paired differences within a family, measured on data/holdout.jsonl: 0.1 to 0.2 for the
# dominant label, 0.3 for the absolute error.
FAMILY_CORRELATION = 0.3

_NORMAL = NormalDist()
# Losses are computed to this precision.
_STEP = 0.001


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


def accepted(
    rows: float, loss: float, margin: float, discordance: float = DISCORDANT_SHARE, level: float = LEVEL
) -> float:
    """Return the probability that a candidate that is worse by `loss` is accepted as not worse.

    Args:
        rows: effective rows of the hold-out set.
        loss: the candidate's true loss, a share; 0 for an equal candidate.
        margin: the non-inferiority margin, a share.
        discordance: part of the rows that one of both answers rightly and the other wrongly.
        level: one-sided error of the test.

    Example:
        >>> round(accepted(200, loss=0.05, margin=0.05), 2)
        0.05
    """
    error = _standard_error(rows, loss, discordance)
    return (
        _NORMAL.cdf((margin - loss) / error - _NORMAL.inv_cdf(1 - level)) if error else float(loss < margin)
    )


def refused_loss(
    rows: float, margin: float, discordance: float = DISCORDANT_SHARE, power: float = POWER
) -> float:
    """Return the smallest loss that is refused with probability `power`; 1.0 if none is."""
    losses = (step * _STEP for step in range(round(1 / _STEP)))
    return next((loss for loss in losses if 1 - accepted(rows, loss, margin, discordance) >= power), 1.0)


def needed_rows(margin: float, discordance: float = DISCORDANT_SHARE, power: float = POWER) -> int:
    """Return the effective rows with which an equal candidate passes with probability `power`."""
    deviations = _NORMAL.inv_cdf(1 - LEVEL) + _NORMAL.inv_cdf(power)
    return math.ceil(discordance * (deviations / margin) ** 2)


def described(rows: float, margin: float, discordance: float = DISCORDANT_SHARE) -> str:
    """Return in words what a hold-out set can show.

    Example:
        >>> described(200, 0.05)
        '200 independent rows: an equal candidate passes in 94 %, one worse by 5 points in 5 %; a loss of 3.8
        points is refused in 80 %'
    """
    equal, worse = (accepted(rows, loss, margin, discordance) for loss in (0.0, margin))
    return (
        f"{rows:,.0f} independent rows: an equal candidate passes in {100 * equal:.0f} %, one worse by "
        f"{100 * margin:.3g} points in {100 * worse:.0f} %; a loss of "
        f"{100 * refused_loss(rows, margin, discordance):.2g} points is refused in {100 * POWER:.0f} %"
    )


def _standard_error(rows: float, loss: float, discordance: float) -> float:
    # At least `loss` of the rows differ between two models that differ by `loss`.
    variance = max(discordance, abs(loss)) - loss * loss
    return math.sqrt(variance / rows) if rows > 0 else math.inf
