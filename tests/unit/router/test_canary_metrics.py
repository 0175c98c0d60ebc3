"""What the router counts for the canary analysis: each query once in a process and rollout."""

from __future__ import annotations

from collections import Counter

import pytest

from distilled_router.release.route import Route, Share
from router import first_sights
from router.first_sights import FirstSights, Sight
from tests.unit.router.conftest import Bench
from tests.unit.router.doubles import TableDouble, client_error
from tests.unit.router.scenes import CANDIDATE, LIVE_ROUTE, STUDENT, MakeBench, healthy

NEVER = 2**40
ROLLING = Route(
    4, (Share("bbbbbbbbbbbb", CANDIDATE, 1.0, expires_at=NEVER), Share("aaaaaaaaaaaa", STUDENT, 0.0))
)
COUNTED = ("CanaryErrors", "CanaryFallback", "CanaryInvalidOutput", "CanaryProcesses")


def counted(bench: Bench) -> list[tuple[int, ...]]:
    """Return what counts for the canary analysis in each document."""
    return [tuple(blob[name] for name in COUNTED) for blob in bench.metrics() if COUNTED[0] in blob]


def test_each_query_counts_once_although_it_is_asked_often(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(ROLLING), cache_entries=0)
    for query in ("dog", "cat", "dog", "dog"):
        made.ask(query)
    assert counted(made) == [(0, 0, 0, 1), (0, 0, 0, 0)]
    assert sum("Latency" in blob for blob in made.metrics()) == 4


def test_second_answer_to_a_query_is_counted_and_the_third_is_not(bench: MakeBench) -> None:
    """They tell how much the processes' queries overlap."""
    made = bench(healthy(), TableDouble(ROLLING))
    for query in ("dog", "cat", "dog", "dog"):
        made.ask(query)
    blobs = [blob for blob in made.metrics() if "CanaryRepeated" in blob]
    assert [(blob["CanaryRepeated"], blob["release"]) for blob in blobs] == [(1, "bbbbbbbbbbbb")]


def test_they_count_for_the_release_only(bench: MakeBench) -> None:
    """No other dimension, which nobody reads and which would be billed."""
    made = bench(healthy(), TableDouble(ROLLING))
    made.ask("dog")
    (blob,) = [blob for blob in made.metrics() if COUNTED[0] in blob]
    of_all, of_release = blob["_aws"]["CloudWatchMetrics"]
    assert (of_all["Dimensions"], of_release["Dimensions"]) == ([["service"]], [["service", "release"]])
    assert (blob["service"], blob["release"]) == ("video-router-test", "bbbbbbbbbbbb")
    assert {metric["Name"] for metric in of_release["Metrics"]} == {*COUNTED, "Fallback"}
    assert not {metric["Name"] for metric in of_all["Metrics"]} & {*COUNTED}


def test_failures_are_told(bench: MakeBench) -> None:
    made = bench(healthy(**{CANDIDATE: "no weights"}), TableDouble(ROLLING))
    made.ask("dog")
    assert counted(made) == [(0, 1, 1, 1)]


def test_queries_of_a_batch_count_once(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(ROLLING))
    made.ask_all(["dog", "dog", "cat"])
    found = counted(made)
    assert (len(found), sum(processes for *_, processes in found)) == (2, 1)
    assert [blob["CanaryRepeated"] for blob in made.metrics() if "CanaryRepeated" in blob] == [1]


def test_use_of_a_caller_counts_for_no_release(bench: MakeBench) -> None:
    throttled = client_error("ThrottlingException", 429)
    made = bench(healthy(**{CANDIDATE: throttled}), TableDouble(ROLLING))
    made.ask("dog")
    assert counted(made) == []


@pytest.mark.parametrize("route", [LIVE_ROUTE, None])
def test_nothing_is_counted_without_a_rollout(bench: MakeBench, route: Route | None) -> None:
    made = bench(healthy(), TableDouble(route))
    made.ask("dog")
    assert counted(made) == []


def rolling(version: int, part: float, digest: str = "b") -> Route:
    return Route(version, (Share(digest, CANDIDATE, part, expires_at=NEVER), Share("a", STUDENT, 1 - part)))


def test_next_step_counts_no_query_again_and_the_next_rollout_does() -> None:
    sights = FirstSights()
    for version, part in enumerate((0.25, 0.5, 1.0)):
        sights.follow(rolling(version, part))
        assert sights.count("b", "dog") == (Sight.FIRST, Sight.AGAIN, None)[version]
    assert sights.count("b", "cat") == Sight.NEW
    assert sights.count("a", "dog") == Sight.FIRST
    sights.follow(LIVE_ROUTE)
    assert sights.count("a", "dog") is None
    sights.follow(rolling(9, 0.25))
    assert sights.count("b", "dog") == Sight.FIRST


def test_memory_is_bounded_and_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_sights, "MOST", 3)
    sights = FirstSights()
    sights.follow(rolling(1, 0.5))
    found = Counter(sights.count("b", str(number % 5)) for number in range(10))
    assert found == {Sight.FIRST: 1, Sight.NEW: 9}
    assert sights.count("b", "4") is Sight.AGAIN
