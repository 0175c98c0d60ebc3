"""The benchmark of a head's promise: its truth, its draws and its exit status."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest

from benchmarks import head_promise
from benchmarks.head_promise import Population
from distilled_router.head.calibration import Case

GOOD = Case(0, 0.0, 0.0, 0.0, head_right=True, student_right=True)


def cases(wrong: int) -> list[Case]:
    """Return a hundred families of two rows; the head is wrong in the first ones."""
    return [
        replace(GOOD, family=place // 2, risk=place / 200, head_right=place >= wrong) for place in range(200)
    ]


def test_truth_is_that_of_all_rows_up_to_a_threshold() -> None:
    population = Population(cases(wrong=7))
    assert not population.is_broken(5 / 200)  # six of 200 rows are lost: 3 %
    assert population.is_broken(6 / 200)
    assert not population.is_broken(-1.0)


def test_error_of_invalid_outputs_is_not_compared() -> None:
    given = [
        replace(case, head_error=0.5, student_error=None if case.family else 0.0) for case in cases(wrong=0)
    ]
    population = Population(given)
    assert population.is_broken(0.0)  # one of the two rows that have a difference
    rest = Population([replace(case, student_error=0.5) for case in given])
    assert not rest.is_broken(1.0)


def test_hold_out_sets_are_drawn_by_families() -> None:
    found = Population(cases(wrong=0)).drawn(60, random.Random(1))
    assert len(found) == 60
    assert [case.family for case in found] == [place // 2 for place in range(60)]


@pytest.mark.parametrize(("most", "status"), [(0.06, 0), (-0.01, 1)])
def test_exit_status_says_whether_the_bar_is_missed(
    most: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(head_promise, "answered_by_head", lambda _: cases(wrong=0))
    monkeypatch.setattr(head_promise, "MOST_BROKEN", most)
    monkeypatch.setattr(sys, "argv", ["head_promise", "--redraws", "2"])
    assert head_promise.main() == status
    assert ("missed" if status else "kept") in capsys.readouterr().out
