"""Parts of the router: prices, budget, breaker, cache."""

from __future__ import annotations

import time

import pytest

from router.breaker import FAILURES, OPEN_SECONDS, Breaker
from router.budget import Budget, OutOfTimeError
from router.cache import AnswerCache, Entry
from router.costs import Costs
from tests.unit.router.doubles import router_env

ANSWER = Entry({"visual": 1.0}, "distilled")


def test_price_of_the_base_models_tokens() -> None:
    costs = Costs(router_env(base_model="base-model", base_prices="0.035 0.14"))
    assert costs.usd("base-model", 1_000_000, 2_000_000) == pytest.approx(0.315)


@pytest.mark.parametrize("prices", ["cheap", "0.035", "0.035 0.14 1"])
def test_wrong_prices_are_named(prices: str) -> None:
    with pytest.raises(ValueError, match=r"STUDENT_PRICES is .*0\.035 0\.14"):
        Costs(router_env(student_prices=prices))


def test_budget_gives_up_a_call_that_hangs() -> None:
    budget = Budget(0.05)
    with pytest.raises(OutOfTimeError):
        budget.call(lambda: time.sleep(0.2), at_most=1.0)
    assert budget.spent == pytest.approx(0.05, abs=0.04)
    assert budget.remaining == 0


def test_budget_gives_one_call_its_part_only() -> None:
    budget = Budget(1.0)
    with pytest.raises(OutOfTimeError):
        budget.call(lambda: time.sleep(0.2), at_most=0.02)
    assert budget.remaining > 0.9


def test_budget_passes_on_what_the_call_gives() -> None:
    def fail() -> None:
        raise LookupError

    budget = Budget(1.0)
    assert budget.call(lambda: 7, at_most=1.0) == 7
    with pytest.raises(LookupError):
        budget.call(fail, at_most=1.0)


def test_breaker_opens_then_probes_then_closes() -> None:
    breaker = Breaker()
    assert [breaker.failed(100.0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert not breaker.allows(100.0 + OPEN_SECONDS - 1)
    assert breaker.allows(100.0 + OPEN_SECONDS)
    assert breaker.failed(100.0 + OPEN_SECONDS), "a failed probe opens it again at once"
    assert not breaker.allows(100.0 + OPEN_SECONDS + 1)
    breaker.succeeded()
    assert breaker.allows(100.0 + OPEN_SECONDS + 1)
    assert not breaker.failed(200.0), "counting starts anew"


def test_breaker_counts_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3 * FAILURES):
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.allows(0.0)


def test_breaker_survives_a_clock_that_is_set_back() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(10_000.0)
    assert breaker.allows(0.0)


def test_cache_forgets_by_age() -> None:
    cache = AnswerCache(10)
    cache.put("dog", "a", ANSWER, now=100.0, seconds=30.0)
    assert cache.get("dog", "a", 129.0) == ANSWER
    assert cache.get("dog", "a", 130.0) is None
    assert len(cache) == 0


def test_cache_forgets_the_least_recently_used() -> None:
    cache = AnswerCache(2)
    cache.put("dog", None, ANSWER, 0.0, 30.0)
    cache.put("cat", None, ANSWER, 0.0, 30.0)
    cache.get("dog", None, 1.0)
    cache.put("cow", None, ANSWER, 1.0, 30.0)
    assert len(cache) == 2
    assert cache.get("cat", None, 1.0) is None
    assert cache.get("dog", None, 1.0) == ANSWER


def test_cache_keeps_releases_apart() -> None:
    cache = AnswerCache(10)
    cache.put("dog", "a", ANSWER, 0.0, 30.0)
    assert cache.get("dog", "b", 1.0) is None
    assert cache.get("dog", None, 1.0) is None


@pytest.mark.parametrize(("entries", "seconds"), [(0, 30.0), (10, 0.0)])
def test_cache_can_be_turned_off(entries: int, seconds: float) -> None:
    cache = AnswerCache(entries)
    cache.put("dog", "a", ANSWER, 0.0, seconds)
    assert len(cache) == 0
