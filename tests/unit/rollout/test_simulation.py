"""False alarms and power of a rollout, simulated at a small size of `python -m benchmarks.rollout`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.rollout import Case, simulate
from benchmarks.rollout_world import Heads, Quality, Traffic

ROLLOUTS = 100


@pytest.mark.parametrize("requests", [50, 400])
@pytest.mark.parametrize(("zipf", "processes"), [(False, 3), (True, 1), (True, 10), (True, 30)])
def test_equal_release_is_seldom_rolled_back(requests: int, zipf: bool, processes: int) -> None:
    """At 2 % there are more than 7 of 100 in one of a thousand simulations."""
    case = Case(traffic=Traffic(requests=requests, processes=processes, zipf=zipf))
    assert simulate(case, ROLLOUTS).back <= 7 / ROLLOUTS


@pytest.mark.parametrize("requests", [50, 2_000])
@pytest.mark.parametrize("worse", [Quality(error=0.025), Quality(fallback=0.075), Quality(invalid=0.05)])
def test_release_at_twice_and_a_half_of_a_limit_is_found_before_it_has_all_requests(
    requests: int, worse: Quality
) -> None:
    case = Case(candidate=worse, traffic=Traffic(requests=requests))
    assert simulate(case, ROLLOUTS).early >= 0.95


@pytest.mark.parametrize("worse", [Quality(error=0.0133), Quality(fallback=0.04), Quality(invalid=0.0267)])
def test_release_somewhat_above_a_limit_is_found_in_most_rollouts(worse: Quality) -> None:
    assert simulate(Case(candidate=worse), ROLLOUTS).back >= 0.5


@pytest.mark.parametrize("processes", [3, 30])
def test_processes_whose_queries_all_differ_hide_no_bad_release(processes: int) -> None:
    traffic = Traffic(requests=400, processes=processes)
    case = Case(candidate=Quality(fallback=0.075), sound_probes=True, traffic=traffic)
    assert simulate(case, ROLLOUTS).back >= 0.9


@pytest.mark.parametrize("families", [100, 1_000])
def test_equal_release_is_seldom_rolled_back_in_a_single_round(families: int) -> None:
    case = Case(families=families, traffic=Traffic(requests=50, processes=1), one_round=True)
    assert simulate(case, 300).back <= 0.03


def test_equal_release_with_very_slow_answers_is_seldom_rolled_back() -> None:
    assert simulate(Case(sigma=1.5), 300).back <= 0.02


def test_release_that_is_bad_in_requests_only_is_found() -> None:
    case = Case(candidate=Quality(fallback=0.075), sound_probes=True, traffic=Traffic(requests=2_000))
    assert simulate(case, ROLLOUTS).early >= 0.95


def test_release_whose_answers_got_worse_is_found() -> None:
    assert simulate(Case(candidate=Quality(loss=0.15)), ROLLOUTS).early >= 0.95


@pytest.mark.parametrize(("mine", "theirs"), [(0.6, 0.0), (0.0, 0.6), (0.6, 0.6), (0.9, 0.9)])
def test_equal_release_with_another_head_is_seldom_rolled_back(mine: float, theirs: float) -> None:
    """All failures are among the hardest queries, which the head leaves to the model."""
    traffic = Traffic(requests=2_000, heads=Heads(candidate=mine, live=theirs, hard=0.4))
    assert simulate(Case(traffic=traffic), ROLLOUTS).back <= 7 / ROLLOUTS


@pytest.mark.parametrize("first", [0.5, 0.9])
def test_head_hides_no_bad_model(first: float) -> None:
    traffic = Traffic(requests=400, heads=Heads(candidate=first))
    case = Case(candidate=Quality(invalid=0.05), traffic=traffic)
    assert simulate(case, ROLLOUTS).early >= 0.95
    more = replace(traffic, requests=10_000)
    assert simulate(replace(case, traffic=more, sound_probes=True), ROLLOUTS).back >= 0.95


def test_simulation_is_repeatable() -> None:
    case = Case(candidate=Quality(fallback=0.035))
    assert simulate(case, 20) == simulate(case, 20)
