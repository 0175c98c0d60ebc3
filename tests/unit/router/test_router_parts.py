"""Parts of the router: prices, budget, breaker, cache."""

from __future__ import annotations

import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from router.allowances import MOST_ALLOWANCES, PART, Allowance, Allowances, RefusedError
from router.breaker import FAILURES, OPEN_SECONDS, Breaker
from router.budget import Budget, OutOfTimeError
from router.cache import SWEEP_SECONDS, AnswerCache, Entry
from router.costs import Costs
from tests.unit.router.doubles import Stopwatch, router_env

ANSWER = Entry({"visual": 1.0}, "distilled")
MEMORY_MB = 512


def test_price_of_the_base_models_tokens() -> None:
    costs = Costs(router_env(base_model="base-model", base_prices="0.035 0.14"))
    assert costs.usd("base-model", 1_000_000, 2_000_000) == pytest.approx(0.315)


@pytest.mark.parametrize("prices", ["cheap", "0.035", "0.035 0.14 1"])
def test_wrong_prices_are_named(prices: str) -> None:
    with pytest.raises(ValueError, match=r"STUDENT_PRICES is .*0\.035 0\.14"):
        Costs(router_env(student_prices=prices))


@pytest.mark.parametrize(("seconds", "at_most"), [(0.05, 60.0), (60.0, 0.05)])
def test_budget_gives_up_a_call_that_hangs(seconds: float, at_most: float) -> None:
    """After its own seconds, or those of the whole budget."""
    over, budget = threading.Event(), Budget(seconds)
    with pytest.raises(OutOfTimeError):
        budget.call(lambda _: over.wait(60), at_most=at_most)
    assert not over.is_set()
    over.set()
    assert 0.04 < budget.spent < 30


def test_budget_passes_on_what_the_call_gives() -> None:
    def fail(_: float) -> None:
        raise LookupError

    budget = Budget(60.0)
    assert budget.call(lambda _: 7, at_most=60.0) == 7
    with pytest.raises(LookupError):
        budget.call(fail, at_most=60.0)


def test_budget_tells_a_call_its_seconds() -> None:
    clock = Stopwatch()
    budget = Budget(100.0, clock)
    assert budget.call(lambda seconds: seconds, at_most=60.0) == 60
    clock.wait(70.0)
    assert budget.call(lambda seconds: seconds, at_most=60.0) == 30
    assert (budget.spent, budget.remaining) == (70, 30)
    clock.wait(31.0)
    assert budget.remaining == 0


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
    cache = AnswerCache(10, MEMORY_MB)
    cache.put("dog", "a", ANSWER, now=100.0, seconds=30.0)
    assert cache.get("dog", "a", 129.0) == ANSWER
    assert cache.get("dog", "a", 130.0) is None
    assert len(cache) == 0


def test_expired_answers_leave_the_cache_unasked() -> None:
    """Queries are personal data, and they must not stay until the cache is full."""
    cache = AnswerCache(100, MEMORY_MB)
    for number in range(10):
        cache.put(f"dog {number}", "a", ANSWER, now=100.0, seconds=30.0 if number else 300.0)
    assert len(cache) == 10
    assert cache.get("cat", "a", 100.0 + 30.0 + SWEEP_SECONDS) is None
    assert len(cache) == 1
    cache.get("cat", "a", 0.0)  # the clock was set back
    assert len(cache) == 0


def test_cache_forgets_the_least_recently_used() -> None:
    cache = AnswerCache(2, MEMORY_MB)
    cache.put("dog", None, ANSWER, 0.0, 30.0)
    cache.put("cat", None, ANSWER, 0.0, 30.0)
    cache.get("dog", None, 1.0)
    cache.put("cow", None, ANSWER, 1.0, 30.0)
    assert len(cache) == 2
    assert cache.get("cat", None, 1.0) is None
    assert cache.get("dog", None, 1.0) == ANSWER


def test_cache_keeps_releases_apart() -> None:
    cache = AnswerCache(10, MEMORY_MB)
    cache.put("dog", "a", ANSWER, 0.0, 30.0)
    assert cache.get("dog", "b", 1.0) is None
    assert cache.get("dog", None, 1.0) is None


@pytest.mark.parametrize(("entries", "seconds"), [(0, 30.0), (10, 0.0)])
def test_cache_can_be_turned_off(entries: int, seconds: float) -> None:
    cache = AnswerCache(entries, MEMORY_MB)
    cache.put("dog", "a", ANSWER, 0.0, seconds)
    assert len(cache) == 0


def long_query(number: int) -> str:
    """Return one of the longest queries, each character of which takes four bytes."""
    return f"{number:06}" + "\U0001f415" * 506


def test_cache_takes_an_eighth_of_the_memory() -> None:
    """100,000 of the longest queries, which the settings allow, would take twice the memory."""
    weights = {"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1}
    cache = AnswerCache(100_000, memory_mb=128)
    tracemalloc.start()
    try:
        for number in range(20_000):
            own = {label: weight + number * 1e-9 for label, weight in weights.items()}
            cache.put(long_query(number), "aaaaaaaaaaaa", Entry(own, "distilled"), float(number), 1e9)
        measured, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.bytes <= 16 * 2**20
    assert measured <= 16.5 * 2**20
    assert cache.get(long_query(19_999), "aaaaaaaaaaaa", 20_000.0)
    assert cache.get(long_query(0), "aaaaaaaaaaaa", 20_000.0) is None


@pytest.mark.parametrize("length", [1, 40, 512])
def test_bytes_of_an_entry_are_those_that_it_takes(length: int) -> None:
    weights = {"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1}
    cache = AnswerCache(100_000, MEMORY_MB)
    tracemalloc.start()
    try:
        for number in range(5_000):
            own = {label: weight + number * 1e-9 for label, weight in weights.items()}
            cache.put(f"{number}".rjust(length), "aaaaaaaaaaaa", Entry(own, "distilled"), float(number), 1e9)
        measured, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert measured <= cache.bytes <= 1.5 * measured


def test_bytes_of_the_cache_are_given_back() -> None:
    cache = AnswerCache(3, MEMORY_MB)
    for number in range(5):
        cache.put(f"dog {number % 4}", "a", ANSWER, now=100.0, seconds=30.0)
    one = cache.bytes // len(cache)
    assert cache.bytes == 3 * one
    cache.get("cat", "a", 100.0 + 30.0 + SWEEP_SECONDS)
    assert (len(cache), cache.bytes) == (0, 0)
    cache.put("dog", "a", ANSWER, now=200.0, seconds=30.0)
    cache.clear()
    assert cache.bytes == 0


def refusal(allowance: Allowance, now: float) -> str:
    """Return why an allowance gives no call now; empty if it gives one."""
    try:
        allowance.enter(now)
    except RefusedError as refused:
        return refused.reason
    return ""


def calls(allowance: Allowance, now: float) -> int:
    """Return how many calls an allowance gives now."""
    return sum(not refusal(allowance, now) for _ in range(2_000))


def throttled(allowance: Allowance, now: float) -> Allowance:
    """Return the allowance after FAILURES throttled calls, the last of which opened its circuit."""
    for _ in range(FAILURES):
        opened = allowance.leave(allowance.enter(now), "failed", now)
    assert opened
    assert refusal(allowance, now) == "throttled"
    return allowance


def test_allowance_is_three_quarters_of_a_minutes_quota() -> None:
    allowance = Allowance(2000 * PART, now=0.0)
    assert calls(allowance, 0.0) == 250
    assert sum(calls(allowance, second) for second in range(1, 61)) == pytest.approx(1250, abs=1)
    assert calls(allowance, 30.0) == 0, "an earlier time gives nothing"
    assert calls(allowance, -100.0) == 0, "a clock that was set back gives nothing"


def test_sustained_use_gets_five_eighths_of_the_quota() -> None:
    """It was three eighths: a lone caller with 20 queries a second used 750 calls of 2,000."""
    allowance = Allowance(2000 * PART, now=0.0)
    granted = Counter(at // 20 // 60 for at in range(20 * 60 * 5) if not refusal(allowance, at / 20))
    assert granted[4] >= 1199, "20 a second are within it"


def test_times_in_any_order_fill_an_allowance_once() -> None:
    """A query that begins with an earlier time, as its base model's call does, set the clock back."""
    allowance = Allowance(2000 * PART, now=0.0)
    calls(allowance, 0.0)
    granted = sum(calls(allowance, at) for second in range(1, 61) for at in (float(second), second - 1.0))
    assert granted == pytest.approx(1250, abs=1)


def test_caller_who_wants_little_keeps_its_allowance_while_others_flood() -> None:
    allowance = Allowance(2000 * PART, now=0.0)
    for half_seconds in range(2 * 53):
        with suppress(RefusedError):
            allowance.leave(allowance.enter(half_seconds / 2), "failed", half_seconds / 2)
    allowance.leave(allowance.enter(70.0), "answered", 70.0)
    assert not any(refusal(allowance, 70 + half_seconds / 2) for half_seconds in range(1, 240))


def test_allowance_is_one_call_at_least() -> None:
    allowance = Allowance(1 * PART, now=0.0)
    assert [calls(allowance, second) for second in (0.0, 30.0, 120.0)] == [1, 0, 1]


def flooded() -> Allowance:
    """Return an allowance whose caller has wanted too much, and whose circuit throttling has opened."""
    allowance = Allowance(2000 * PART, now=0.0)
    calls(allowance, -1e-3)
    return throttled(allowance, 1.0)


def test_throttling_halves_an_allowance_and_a_minute_doubles_it() -> None:
    allowance = flooded()
    probe = allowance.enter(1 + OPEN_SECONDS)
    assert allowance.leave(probe, "failed", 1 + OPEN_SECONDS), "a probe that is throttled opens it again"
    probe = allowance.enter(1 + 2 * OPEN_SECONDS)
    allowance.leave(probe, "answered", 1 + 2 * OPEN_SECONDS)
    # A quarter of 250, a little grown.
    assert calls(allowance, 1 + 2 * OPEN_SECONDS) == pytest.approx(70, abs=15)
    assert calls(allowance, 90.0) == pytest.approx(160, abs=20)
    assert calls(allowance, 600.0) == 250


def test_allowance_is_whole_five_minutes_after_a_throttling_of_any_length() -> None:
    allowance = flooded()
    for number in range(1, 100):
        calls(allowance, number * OPEN_SECONDS)  # the flood goes on
        with suppress(RefusedError):
            probe = allowance.enter(1 + number * OPEN_SECONDS)
            allowance.leave(probe, "failed", 1 + number * OPEN_SECONDS)
    ended = 1 + 101 * OPEN_SECONDS
    allowance.leave(allowance.enter(ended), "answered", ended)
    assert calls(allowance, ended + 1) < 30
    assert calls(allowance, ended + 300) == 250
    assert calls(allowance, ended + 1e9) == 250


def test_permit_without_a_token_is_given_back() -> None:
    """The circuit would wait for its probe, and stay open for this caller."""
    allowance = Allowance(6, now=0.0)  # one at once, and one each 12 seconds
    for number in range(FAILURES):
        opened = allowance.leave(allowance.enter(number * 12.1), "failed", number * 12.1)
    assert opened
    at = (FAILURES - 1) * 12.1 + OPEN_SECONDS
    assert refusal(allowance, at) == "over_allowance"
    assert allowance.enter(at + 3) == "probe"


def test_allowances_are_a_fixed_number_whatever_names_callers_give() -> None:
    allowances = Allowances(quota=2000)
    mine = allowances.of("model", "mine", 0.0)
    for number in range(10_000):
        allowances.of("model", f"forged {number}", 0.0)
        assert allowances.of("model", "mine", 0.0) is mine, "who comes back is remembered"
    assert len(allowances) == MOST_ALLOWANCES
