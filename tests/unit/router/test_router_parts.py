"""Parts of the router: prices, budget, breaker, cache."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.breaker import FAILURES, OPEN_SECONDS, Breaker
from router.budget import Budget, OutOfTimeError
from router.cache import SWEEP_SECONDS, AnswerCache, Entry
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
        budget.call(lambda _: time.sleep(0.2), at_most=1.0)
    assert budget.spent == pytest.approx(0.05, abs=0.04)
    assert budget.remaining == 0


def test_budget_gives_one_call_its_part_only() -> None:
    budget = Budget(1.0)
    with pytest.raises(OutOfTimeError):
        budget.call(lambda _: time.sleep(0.2), at_most=0.02)
    assert budget.remaining > 0.9


def test_budget_passes_on_what_the_call_gives() -> None:
    def fail(_: float) -> None:
        raise LookupError

    budget = Budget(1.0)
    assert budget.call(lambda _: 7, at_most=1.0) == 7
    with pytest.raises(LookupError):
        budget.call(fail, at_most=1.0)


def test_budget_tells_a_call_its_seconds() -> None:
    budget = Budget(1.0)
    assert budget.call(lambda seconds: seconds, at_most=0.2) == pytest.approx(0.2, abs=0.05)
    assert budget.call(lambda seconds: seconds, at_most=5.0) == pytest.approx(1.0, abs=0.1)


def opened(breaker: Breaker, now: float) -> Breaker:
    """Return the breaker after FAILURES failures, the last of which opened it."""
    found = []
    for _ in range(FAILURES):
        permit = breaker.enter(now)
        assert permit == "call"
        found.append(breaker.leave(permit, "failed", now))
    assert found == [False] * (FAILURES - 1) + [True]
    return breaker


def test_breaker_opens_then_probes_then_closes() -> None:
    breaker = opened(Breaker(), 100.0)
    assert breaker.enter(100.0 + OPEN_SECONDS - 1) is None
    assert breaker.enter(100.0 + OPEN_SECONDS) == "probe"
    assert breaker.leave("probe", "failed", 100.0 + OPEN_SECONDS), "a failed probe opens it again at once"
    assert breaker.enter(100.0 + OPEN_SECONDS + 1) is None
    assert breaker.enter(100.0 + 2 * OPEN_SECONDS) == "probe"
    assert not breaker.leave("probe", "answered", 100.0 + 2 * OPEN_SECONDS)
    opened(breaker, 200.0)  # counting starts anew


def test_breaker_allows_one_probe_however_long_it_takes() -> None:
    breaker = opened(Breaker(), 100.0)
    assert breaker.enter(111.0) == "probe"
    for now in (111.0, 121.0, 500.0, 50.0):
        assert breaker.enter(now) is None
    breaker.leave("probe", "unknown", 500.0)
    assert breaker.enter(500.0) == "probe", "a probe that shows nothing is followed by another"


def test_calls_from_before_a_breaker_opened_change_nothing_after_it() -> None:
    breaker = opened(Breaker(), 100.0)
    for result in ("answered", "failed"):
        assert not breaker.leave("call", result, 109.0)
    assert breaker.enter(109.0) is None
    assert breaker.enter(110.0) == "probe"
    assert not breaker.leave("call", "failed", 110.0)
    assert breaker.enter(111.0) is None, "the probe still runs"


def test_one_of_many_threads_gets_the_probe() -> None:
    breaker = opened(Breaker(), 100.0)
    together = threading.Barrier(16)

    def enter(_: int) -> object:
        together.wait()
        return breaker.enter(120.0)

    with ThreadPoolExecutor(16) as pool:
        assert sorted(map(str, pool.map(enter, range(16)))) == ["None"] * 15 + ["probe"]


def test_breaker_counts_failures_in_a_row_only() -> None:
    breaker = Breaker()
    for _ in range(3 * FAILURES):
        breaker.leave("call", "failed", 0.0)
        breaker.leave("call", "answered", 0.0)
    assert breaker.enter(0.0) == "call"


def test_results_that_say_nothing_do_not_count() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.leave("call", "failed", 0.0)
        breaker.leave("call", "unknown", 0.0)
    assert breaker.enter(0.0) == "call"
    assert breaker.leave("call", "failed", 0.0)


def test_breaker_survives_a_clock_that_is_set_back() -> None:
    assert opened(Breaker(), 10_000.0).enter(0.0) == "probe"


def test_cache_forgets_by_age() -> None:
    cache = AnswerCache(10)
    cache.put("dog", "a", ANSWER, now=100.0, seconds=30.0)
    assert cache.get("dog", "a", 129.0) == ANSWER
    assert cache.get("dog", "a", 130.0) is None
    assert len(cache) == 0


def test_expired_answers_leave_the_cache_unasked() -> None:
    """Queries are personal data, and they must not stay until the cache is full."""
    cache = AnswerCache(100)
    for number in range(10):
        cache.put(f"dog {number}", "a", ANSWER, now=100.0, seconds=30.0 if number else 300.0)
    assert len(cache) == 10
    assert cache.get("cat", "a", 100.0 + 30.0 + SWEEP_SECONDS) is None
    assert len(cache) == 1
    cache.get("cat", "a", 0.0)  # the clock was set back
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
