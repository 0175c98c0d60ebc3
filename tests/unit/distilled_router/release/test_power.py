"""What a hold-out set can show about a candidate."""

import random

import pytest

from distilled_router.release.power import accepted, described, effective_rows, needed_rows, refused_loss

MARGIN = 0.05


@pytest.mark.parametrize("rows", [100, 200, 500, 1_000])
def test_a_loss_of_the_margin_is_accepted_in_five_percent(rows: int) -> None:
    assert accepted(rows, MARGIN, MARGIN) == pytest.approx(0.05)


@pytest.mark.parametrize(("rows", "loss"), [(200, 0.0), (200, 0.03), (1_000, 0.03)])
def test_the_approximation_agrees_with_a_simulation(rows: int, loss: float) -> None:
    chance, runs, passed = random.Random(1), 2_000, 0
    worse, better = (0.05 + loss) / 2, (0.05 - loss) / 2
    for _ in range(runs):
        drawn = chance.choices((-1, 1, 0), (worse, better, 1 - worse - better), k=rows)
        mean = sum(drawn) / rows
        error = ((sum(map(abs, drawn)) / rows - mean * mean) / rows) ** 0.5
        passed += mean - 1.645 * error > -MARGIN
    assert accepted(rows, loss, MARGIN) == pytest.approx(passed / runs, abs=0.06)


def test_more_rows_accept_more_equal_candidates_and_fewer_losses() -> None:
    equal = [accepted(rows, 0.0, MARGIN) for rows in (50, 100, 200, 500)]
    assert equal == sorted(equal)
    found = [refused_loss(rows, MARGIN) for rows in (10, 100, 200, 500, 5_000)]
    assert found[0] == 0.0  # too few rows: even an equal candidate is refused
    assert 0.04 < found[-1] < MARGIN


def test_without_rows_nothing_is_shown() -> None:
    assert accepted(0, 0.0, MARGIN) == pytest.approx(0.05)
    assert accepted(0, 0.2, MARGIN) == pytest.approx(0.05)


def test_the_needed_rows_are_enough_and_not_more() -> None:
    rows = needed_rows(MARGIN)
    assert accepted(rows, 0.0, MARGIN) >= 0.80 > accepted(rows - 1, 0.0, MARGIN)


def test_a_family_says_less_than_as_many_single_rows() -> None:
    assert effective_rows([]) == 0
    assert effective_rows([1] * 252) == 252
    assert 1 < effective_rows([252]) < 4
    assert effective_rows([51, *[1] * 942]) < 993


def test_the_words_tell_rows_margin_and_both_errors() -> None:
    text = described(200, MARGIN)
    assert text == (
        "200 independent rows: an equal candidate passes in 94 %, one worse by 5 points in 5 %; a loss of "
        "3.8 points is refused in 80 %"
    )
