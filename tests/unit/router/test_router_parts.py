"""The router's small parts, each by itself: settings, budget, breaker, cache."""

from __future__ import annotations

import time

import pytest

from router.breaker import FAILURES, OPEN_SECONDS, Breaker
from router.budget import Budget, OutOfTimeError
from router.cache import AnswerCache, Entry
from router.costs import Costs
from router.settings import Settings

ENVIRONMENT = {"NAME": "video-router-test", "TABLE_NAME": "releases", "BASE_MODEL_ID": "base-model"}
ANSWER = Entry({"visual": 1.0}, "distilled")


def test_settings_are_read() -> None:
    settings = Settings.from_environment(
        {
            **ENVIRONMENT,
            "TIME_BUDGET_MS": "800",
            "CACHE_ENTRIES": "10",
            "CACHE_SECONDS": "60",
            "ROUTE_SECONDS": "5",
            "LOG_QUERIES": "True",
            "BASE_PRICES": "0.035 0.14",
        }
    )
    assert settings.time_budget == 0.8
    assert (settings.cache_entries, settings.cache_seconds, settings.route_seconds) == (10, 60, 5)
    assert settings.log_queries
    assert Costs(settings).usd(settings.base_model_id, 1_000_000, 2_000_000) == pytest.approx(0.315)


def test_settings_have_defaults() -> None:
    settings = Settings.from_environment(ENVIRONMENT)
    assert settings.time_budget == 1.5
    assert not settings.log_queries


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NAME", ""),
        ("TABLE_NAME", " "),
        ("BASE_MODEL_ID", ""),
        ("TIME_BUDGET_MS", "soon"),
        ("TIME_BUDGET_MS", "1"),
        ("CACHE_ENTRIES", "-1"),
        ("ROUTE_SECONDS", "nan"),
        ("LOG_QUERIES", "maybe"),
    ],
)
def test_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=variable):
        Settings.from_environment({**ENVIRONMENT, variable: value})


@pytest.mark.parametrize("prices", ["cheap", "0.035", "0.035 0.14 1"])
def test_wrong_prices_are_named(prices: str) -> None:
    with pytest.raises(ValueError, match=r"STUDENT_PRICES is .*0\.035 0\.14"):
        Costs(Settings.from_environment({**ENVIRONMENT, "STUDENT_PRICES": prices}))


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
