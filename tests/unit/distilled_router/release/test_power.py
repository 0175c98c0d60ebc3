"""What a hold-out set can show about a candidate."""

import random

import pytest

from distilled_router.release.power import (
    accepted,
    described,
    effective_rows,
    needed_rows,
    passes,
    refused_loss,
)
from evaluation.intervals import BOUNDS, means

MARGIN, ERRORS = 0.05, 0.02


@pytest.mark.parametrize("rows", [100, 200, 500, 1_000])
def test_a_loss_of_the_margin_is_accepted_in_five_percent(rows: int) -> None:
    assert accepted(rows, MARGIN, MARGIN) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("rows", "loss", "discordance"),
    [(200, 0.0, 0.05), (200, 0.03, 0.05), (1_000, 0.03, 0.05), (200, 0.0, 0.15), (500, 0.05, 0.05)],
)
def test_what_is_told_before_is_what_the_gate_does(rows: int, loss: float, discordance: float) -> None:
    chance, runs, passed = random.Random(1), 1_000, 0
    worse, better = (discordance + loss) / 2, (discordance - loss) / 2
    for _ in range(runs):
        drawn = chance.choices((-1.0, 1.0, 0.0), (worse, better, 1 - worse - better), k=rows)
        passed += means({"x": drawn}, shares=["x"], paired=["x"], confidence=BOUNDS)["x"].low >= -MARGIN
    assert accepted(rows, loss, MARGIN, discordance) == pytest.approx(passed / runs, abs=0.04)


@pytest.mark.parametrize(("rows", "ok"), [(58, False), (59, True)])
def test_so_few_rows_refuse_even_a_candidate_that_never_differs(rows: int, ok: bool) -> None:
    found = means({"x": [0.0] * rows}, shares=["x"], paired=["x"], confidence=BOUNDS)["x"]
    assert (found.low >= -MARGIN) is ok
    assert (passes(rows, MARGIN, ERRORS) > 0) is ok
    told = "an equal candidate passes in" if ok else "too few for any candidate to pass"
    assert described(rows, MARGIN, ERRORS).startswith(f"{rows} independent rows: {told}")


def test_a_small_margin_of_the_error_counts_as_well() -> None:
    assert passes(200, MARGIN, 0.002) < 0.15 < 0.8 < passes(200, MARGIN, ERRORS)
    assert passes(200, MARGIN, ERRORS, deviation=0.3) < 0.3
    assert needed_rows(MARGIN, 0.002) > 10 * needed_rows(MARGIN, ERRORS)


def test_more_rows_accept_more_equal_candidates_and_fewer_losses() -> None:
    equal = [accepted(rows, 0.0, MARGIN) for rows in (50, 100, 200, 500)]
    assert equal == sorted(equal)
    found = [refused_loss(rows, MARGIN) for rows in (10, 100, 200, 500, 5_000)]
    assert found[0] == 0.0  # too few rows: even an equal candidate is refused
    assert 0.04 < found[-1] < MARGIN


def test_without_rows_nothing_is_shown() -> None:
    assert accepted(0, 0.0, MARGIN) == accepted(0, 0.2, MARGIN) == passes(0, MARGIN, ERRORS) == 0


def test_the_needed_rows_are_enough_and_not_more() -> None:
    rows = needed_rows(MARGIN, ERRORS)
    assert passes(rows, MARGIN, ERRORS) >= 0.80 > passes(rows - 1, MARGIN, ERRORS)


def test_a_family_says_less_than_as_many_single_rows() -> None:
    assert effective_rows([]) == 0
    assert effective_rows([1] * 252) == 252
    assert 1 < effective_rows([252]) < 4
    assert effective_rows([51, *[1] * 942]) < 993


def test_the_words_tell_rows_margin_and_both_errors() -> None:
    text = described(200, MARGIN, ERRORS)
    assert text == (
        "200 independent rows: an equal candidate passes in 87 % of evaluations, one worse by 5 points in "
        "5 %; a loss of 3.5 points is refused in 80 %"
    )
