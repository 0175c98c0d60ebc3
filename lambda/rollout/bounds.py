"""Exact one-sided tests and confidence bounds of shares (Clopper and Pearson, 1934)."""

from __future__ import annotations

import math

# Bisections, after which a bound is known to nine digits.
_HALVINGS = 30


def upper_tail(bad: int, of: int, share: float) -> float:
    """Return the probability of `bad` or more out of `of`, if each is bad with probability `share`.

    Example:
        >>> upper_tail(1, 2, 0.5)
        0.75
    """
    if bad <= 0 or share >= 1:
        return 1.0
    if bad > of or share <= 0:
        return 0.0
    # The largest term first, so that no sum of small ones is lost.
    start = max(bad, math.ceil(of * share))
    peak = math.exp(
        math.lgamma(of + 1)
        - math.lgamma(start + 1)
        - math.lgamma(of - start + 1)
        + start * math.log(share)
        + (of - start) * math.log1p(-share)
    )
    odds = share / (1 - share)
    total = term = peak
    for count in range(start, of):
        term *= (of - count) / (count + 1) * odds
        total += term
        if term < 1e-12 * total:
            break
    term = peak
    for count in range(start, bad, -1):
        term *= count / (of - count + 1) / odds
        total += term
    return min(total, 1.0)


def lower(bad: int, of: int, level: float) -> float:
    """Return the lower bound of a share: a smaller one would give as many or more with less than `level`.

    Example:
        >>> lower(200, 200, 0.05)
        0.98...
    """
    if bad <= 0:
        return 0.0
    low, high = 0.0, bad / of
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(bad, of, middle) < level else (low, middle)
    return low


def upper(bad: int, of: int, level: float) -> float:
    """Return the upper bound of a share.

    Example:
        >>> round(upper(0, 59, 0.05), 3)
        0.05
    """
    return 1 - lower(of - bad, of, level)
