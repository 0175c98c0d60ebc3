"""One schedule of the fault run; `make faults` runs many."""

from __future__ import annotations

import pytest

from tests.faults.schedule import TOUR, TOUR_VARIANTS, Schedule
from tests.faults.variants import NAMES
from tests.faults.workers import run

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("faults")]

# All variants without faults. A stack deleted while it is created, with lagging reads. A cancelled Create.
SEEDS = (TOUR, 49, 70)


def test_faults_cost_nothing_twice_and_leave_nothing_running() -> None:
    results = list(run(SEEDS, workers=1))
    told = "\n".join(f"seed {r.seed}\n" + "\n".join([*r.story, *r.problems]) for r in results if r.problems)
    assert not told, told
    assert all(result.answers for result in results)


def test_the_tour_deploys_every_variant() -> None:
    assert sorted(TOUR_VARIANTS) == sorted(NAMES)


def test_a_schedule_follows_from_its_seed() -> None:
    assert Schedule.of(7) == Schedule.of(7)
    assert Schedule.of(7) != Schedule.of(8)
