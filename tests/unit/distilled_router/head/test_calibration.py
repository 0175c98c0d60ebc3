"""The threshold of the head, and its promise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from distilled_router.head.calibration import (
    MOST_RISK,
    Calibration,
    Case,
    calibrate,
    needed_families,
    upper_bound,
)

LABELS = 4
GOOD = Case(0, 0.1, 0.01, 0.01, head_right=True, student_right=True)
MARGINS = (0.02, 0.03)


def cases(count: int, **changes: Any) -> list[Case]:
    """Return cases with risks that rise to the largest, each of a family of its own."""
    return [replace(GOOD, family=place, risk=risk((place + 1) / count), **changes) for place in range(count)]


def risk(part: float) -> float:
    """Return that part of the largest risk."""
    return MOST_RISK * part


def calibrated(given: Iterable[Case], margins: tuple[float, float] = MARGINS) -> Calibration:
    return calibrate(given, *margins, LABELS)


def spoilt(given: list[Case], changes: Callable[[Case], dict[str, Any]]) -> list[Case]:
    return [replace(case, **changes(case)) for case in given]


def test_a_head_as_good_as_the_student_answers_everything() -> None:
    found = calibrated(cases(200))
    assert (found.threshold, found.coverage) == (MOST_RISK, 1.0)
    assert found.error_bound is not None
    assert found.dominant_bound is not None
    assert 0 < found.error_bound <= 0.02
    assert 0 < found.dominant_bound <= 0.03
    assert [round(one.coverage, 2) for one in found.table] == [step / 20 for step in range(1, 21)]


def test_sixty_rows_have_no_threshold_and_are_told_how_many_are_needed() -> None:
    found = calibrated(cases(60))
    assert (found.threshold, found.coverage) == (None, 0.0)
    assert (found.error_bound, found.dominant_bound) == (None, None)
    assert found.families == 60
    assert found.needed == 99
    assert not any(one.ok for one in found.table)


def test_needed_families_are_exactly_enough() -> None:
    needed = needed_families(*MARGINS, LABELS)
    assert calibrated(cases(needed)).threshold == MOST_RISK
    assert calibrated(cases(needed - 1)).threshold is None


@pytest.mark.parametrize(("margins", "families"), [((0.02, 1.0), 74), ((1.0, 0.03), 99), ((1.0, 1.0), 1)])
def test_each_margin_needs_its_families(margins: tuple[float, float], families: int) -> None:
    assert needed_families(*margins, LABELS) == families


def test_a_margin_of_zero_can_never_be_kept() -> None:
    assert calibrated(cases(500), (0.0, 0.03)).threshold is None
    assert needed_families(0.0, 0.03, LABELS) > 10_000


def test_the_sequence_stops_at_the_first_failure() -> None:
    """Of 500 queries, those from 30 % to 35 % lose so much that the mean of the first 35 % is bad.

    With all queries the head is better than the student again, and still no larger threshold is taken.
    """

    def changed(case: Case) -> dict[str, Any]:
        if risk(0.3) < case.risk <= risk(0.35):
            return {"head_right": False, "head_error": 0.5}
        return {"student_right": False, "student_error": 0.5} if case.risk > risk(0.5) else {}

    found = calibrated(spoilt(cases(500), changed))
    assert found.threshold == pytest.approx(risk(0.3))
    assert [one.ok for one in found.table] == [True] * 6 + [False] * 14
    last = found.table[-1]
    assert last.error_bound < 0
    assert last.dominant_bound < 0


@pytest.mark.parametrize("wrong", [{"head_right": False}, {"head_error": 0.4}])
def test_either_loss_alone_prevents_a_threshold(wrong: dict[str, Any]) -> None:
    found = calibrated(spoilt(cases(300), lambda case: wrong if case.family % 10 == 0 else {}))
    assert found.coverage < 0.5


def test_equal_risks_are_admitted_together() -> None:
    """A tenth of the queries has one risk, across the 5 % mark; so no threshold lies within it."""
    given = spoilt(cases(200), lambda case: {"risk": risk(0.1)} if case.risk <= risk(0.1) else {})
    found = calibrated(given)
    assert [one.coverage for one in found.table[:3]] == [0.1, 0.15, 0.2]
    one_risk = calibrated(spoilt(cases(200), lambda _: {"risk": risk(0.3)}))
    assert [(one.threshold, one.coverage) for one in one_risk.table] == [(risk(0.3), 1.0)]
    assert one_risk.threshold == risk(0.3)


def test_equal_risks_fail_together() -> None:
    """All queries have one risk, so the head can't leave out those in which it is wrong."""
    given = spoilt(cases(200), lambda case: {"risk": risk(0.3), "head_right": case.family % 10 > 0})
    assert calibrated(given).threshold is None


def test_queries_of_infinite_risk_are_never_admitted() -> None:
    given = spoilt(cases(200), lambda case: {"risk": math.inf} if case.risk > risk(0.5) else {})
    found = calibrated(given)
    assert (found.threshold, found.coverage) == (risk(0.5), 0.5)
    none = calibrated(spoilt(cases(200), lambda _: {"risk": math.inf}))
    assert (none.threshold, none.table) == (None, ())
    assert "leaves all hold-out queries to the student" in none.obstacle


@pytest.mark.parametrize("part", [0.5, 0.513])
def test_no_threshold_is_larger_than_the_largest_risk(part: float) -> None:
    """The report still shows what larger ones would do."""
    given = [replace(case, risk=case.risk / part) for case in cases(1_000)]
    found = calibrated(given)
    assert found.threshold == pytest.approx(MOST_RISK)
    assert found.coverage == part
    assert found.table[-1].coverage == 1.0
    assert [one.ok for one in found.table] == [one.coverage <= part for one in found.table]
    assert found.obstacle == ""
    none = calibrated([replace(case, risk=case.risk + 0.01 + MOST_RISK) for case in given])
    assert (none.threshold, none.coverage) == (None, 0.0)
    assert "risk of the surest 5% of the hold-out queries is up to 0.06" in none.obstacle
    assert "the largest allowed is 0.05" in none.obstacle


def test_no_cases_have_no_threshold() -> None:
    found = calibrated([])
    assert (found.threshold, found.rows, found.families, found.table) == (None, 0, 0, ())
    assert found.student_error is None


def test_an_invalid_output_has_no_error_and_counts_as_wrong() -> None:
    """Where the student's output is invalid, a right label of the head makes good for a wrong one."""
    invalid = {"student_error": None, "student_right": False}
    found = calibrated(spoilt(cases(200), lambda case: invalid if case.family % 2 else {}))
    assert found.threshold == MOST_RISK
    assert found.dominant_bound is not None
    assert found.dominant_bound < 0
    assert found.student_error == pytest.approx(0.01)
    assert found.student_dominant == 0.5
    wrong = {**invalid, "head_right": False, "head_error": 0.5}
    even = calibrated(spoilt(cases(200), lambda case: wrong if case.family % 2 else {}))
    assert even.threshold == MOST_RISK
    assert even.table[-1].mixed_dominant == 0.5


def test_without_any_valid_output_nothing_is_promised_of_the_error() -> None:
    found = calibrated(cases(200, student_error=None, student_right=False))
    assert found.threshold is None
    assert all(one.error_bound == 0.5 for one in found.table)


def test_rows_of_one_family_count_as_one() -> None:
    """Two hundred rows of 20 families are no more than 20."""
    given = [replace(case, family=case.family % 20) for case in cases(200)]
    found = calibrated(given)
    assert (found.threshold, found.families, found.rows) == (None, 20, 200)


def test_a_large_family_counts_by_its_rows() -> None:
    """One family of 20 rows with a wrong label is a loss of a tenth, not of a 181st."""
    wrong = [replace(GOOD, family=1_000, risk=0.001, head_right=False) for _ in range(20)]
    assert calibrated([*cases(180), *wrong]).threshold is None
    assert calibrated([*cases(180), *wrong[:1]]).threshold is not None


def test_the_order_of_the_cases_does_not_matter() -> None:
    given = spoilt(
        cases(300), lambda case: {"head_right": case.family % 40 > 0, "risk": risk(case.family // 7 / 300)}
    )
    mixed = random.Random(1).sample(given, len(given))
    assert calibrated(mixed).threshold == calibrated(given).threshold


@pytest.mark.parametrize(("families", "losses"), [(10, 0), (50, 0), (50, 1), (100, 3), (500, 10), (500, 40)])
def test_the_bound_of_losses_of_all_or_nothing_is_clopper_and_pearsons(families: int, losses: int) -> None:
    """At the bound, so few losses or fewer would be seen in 5 % of the draws."""
    given = {family: (float(family < losses), 1) for family in range(families)}
    bound = upper_bound(given, 1.0)
    seen = math.fsum(
        math.comb(families, count) * bound**count * (1 - bound) ** (families - count)
        for count in range(losses + 1)
    )
    assert seen == pytest.approx(0.05, abs=0.005)


def test_the_bound_of_many_alike_losses_is_the_usual_one() -> None:
    """Without rare losses it is the normal bound of a mean."""
    chance = random.Random(3)
    given = {family: (chance.gauss(0, 0.1), 1) for family in range(2_000)}
    mean = math.fsum(total for total, _ in given.values()) / 2_000
    assert upper_bound(given, 0.5) == pytest.approx(mean + 1.645 * 0.1 / 2_000**0.5, abs=0.0006)


def test_the_bound_never_exceeds_what_is_possible() -> None:
    assert upper_bound({}, 0.5) == 0.5
    assert upper_bound({1: (1.0, 1)}, 1.0) == 1.0
    assert upper_bound({1: (3.0, 3), 2: (0.0, 1)}, 1.0) <= 1.0


def test_the_promise_is_kept_at_small_n() -> None:
    """A head that is wrong in a few rows more than allowed gets a threshold in at most 6 % of the draws.

    A t-test breaks this promise in 15 %, since many draws of 126 rows have none of those rows.
    """
    chance = random.Random(5)
    for rows in (100, 126, 252):
        broken = 0
        for _ in range(400):
            losses = {family: (float(chance.random() < 0.0305), 1) for family in range(rows)}
            broken += upper_bound(losses, 1.0) <= 0.03
        assert broken <= 0.06 * 400, rows


def test_the_promise_is_kept_for_families_of_very_different_sizes() -> None:
    """Each family loses all or nothing. By rows alone, 14 % of the draws without large ones would pass."""
    chance = random.Random(7)
    sizes, broken = [1] * 8 + [8] * 2, 0
    for _ in range(400):
        losses = {
            family: (size * float(chance.random() < 0.0305), size)
            for family, size in enumerate(chance.choices(sizes, k=150))
        }
        broken += upper_bound(losses, 1.0) <= 0.03
    assert broken <= 0.06 * 400
