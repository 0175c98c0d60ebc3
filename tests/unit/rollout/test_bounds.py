"""Exact tests and bounds of shares, against published values and by enumeration."""

from __future__ import annotations

import math

import pytest

from rollout.bounds import lower, upper, upper_tail


@pytest.mark.parametrize("share", [0.001, 0.03, 0.5, 0.97])
@pytest.mark.parametrize("of", [1, 7, 40])
def test_upper_tail_is_the_sum_of_the_binomial_distribution(of: int, share: float) -> None:
    for bad in range(of + 2):
        terms = (math.comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(bad, of + 1))
        assert upper_tail(bad, of, share) == pytest.approx(math.fsum(terms), abs=1e-12)


@pytest.mark.parametrize(
    ("bad", "of", "share", "expected"),
    [(0, 0, 0.5, 1.0), (1, 0, 0.5, 0.0), (1, 5, 0.0, 0.0), (0, 5, 0.0, 1.0), (5, 5, 1.0, 1.0)],
)
def test_upper_tail_at_the_edges(bad: int, of: int, share: float, expected: float) -> None:
    assert upper_tail(bad, of, share) == expected


def test_upper_tail_of_many_trials_is_near_the_normal_distributions() -> None:
    of, share = 2_000_000, 0.03
    three = of * share + 3 * math.sqrt(of * share * (1 - share))
    assert upper_tail(math.ceil(three), of, share) == pytest.approx(0.00135, rel=0.03)


@pytest.mark.parametrize(
    ("bad", "of", "level", "least", "most"),
    [
        # One-sided bounds of Clopper and Pearson: rule of three, all right, and a table's 95 % interval.
        (0, 59, 0.05, 0.0, 0.0495),
        (200, 200, 0.05, 0.9851, 1.0),
        (10, 100, 0.025, 0.0490, 0.1762),
    ],
)
def test_bounds_are_those_of_clopper_and_pearson(
    bad: int, of: int, level: float, least: float, most: float
) -> None:
    assert lower(bad, of, level) == pytest.approx(least, abs=1e-4)
    assert upper(bad, of, level) == pytest.approx(most, abs=1e-4)
