"""Batches: answers in order, queries in parallel, each independent of the others."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

import pytest

from router.service import SIDE_BY_SIDE
from tests.unit.router.conftest import Bench
from tests.unit.router.doubles import (
    BASE_MODEL,
    BedrockDouble,
    ContextDouble,
    TableDouble,
    client_error,
    reply,
)
from tests.unit.router.scenes import LIVE_ROUTE, STUDENT, STUDENT_SAYS, MakeBench, healthy, student

MOST_QUERIES = 100


def ask(made: Bench, *queries: object, context: object = None) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = made.router.handle({"queries": list(queries)}, context)["answers"]
    return answers


class Echo(BedrockDouble):
    """A student whose first weight is the query's number, in percent.

    The first queries end together: with one thread fewer than there are of them, none does.
    """

    def __init__(self, seconds: float = 0.0, together: int = 1) -> None:
        super().__init__()
        self.seconds, self.at_once, self.most = seconds, 0, 0
        self._lock, self._together = threading.Lock(), threading.Barrier(together)

    def converse(self, **request: Any) -> dict[str, Any]:
        number = int(request["messages"][0]["content"][0]["text"].split()[-1])
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        if number < self._together.parties:
            self._together.wait(60)
        if self.seconds:
            self.hang(self.seconds)
        with self._lock:
            self.at_once -= 1
        return reply(f"{number} {100 - number} 0 0")


def test_a_whole_batch_is_answered_in_its_order_some_side_by_side(bench: MakeBench) -> None:
    echo = Echo(together=SIDE_BY_SIDE)
    made = bench(echo, TableDouble(LIVE_ROUTE))
    answers = ask(made, *(f"query {number}" for number in range(MOST_QUERIES)))
    assert [answer["weights"]["visual"] for answer in answers] == [n / 100 for n in range(MOST_QUERIES)]
    assert {answer["source"] for answer in answers} == {"distilled"}
    assert echo.most == SIDE_BY_SIDE
    assert len(made.table.reads) == 1


def test_every_query_counts_for_itself(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    ask(made, "dog", "cat", "bird")
    assert ["Latency" in blob for blob in made.metrics()] == [True] * 3
    assert all("OutputTokens" in blob for blob in made.metrics())


def test_same_query_is_asked_once(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    answers = ask(made, "red car", "red \u00a0car ", "cat", "red car")
    assert made.bedrock.asked(STUDENT) == 2
    assert [answer["cached"] for answer in answers] == [False, True, False, True]


@pytest.mark.parametrize("cache", [{}, {"cache_entries": 0}, {"cache_seconds": 0}])
@pytest.mark.parametrize(("says", "source"), [(STUDENT_SAYS, "distilled"), ("no weights", "static")])
def test_same_query_is_asked_once_without_a_cache_entry(
    bench: MakeBench, says: str, source: str, cache: dict[str, int]
) -> None:
    """Static weights are never cached, and a hundred copies of a query must not wait a hundred times."""
    made = bench(healthy(**{STUDENT: says, BASE_MODEL: says}), TableDouble(LIVE_ROUTE), **cache)
    answers = ask(made, *["dog"] * 5, " dog")
    assert made.bedrock.asked(STUDENT) == 1
    assert {answer["source"] for answer in answers} == {source}
    assert [answer["cached"] for answer in answers] == [False] + [True] * 5
    assert sum("Latency" in blob for blob in made.metrics()) == 6
    assert {blob["release"] for blob in made.metrics() if "Latency" in blob} == {"aaaaaaaaaaaa"}


def test_invalid_query_of_a_batch_leaves_the_others_answered(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    first, second, third = ask(made, "dog", "", "cat")
    assert first["source"] == third["source"] == "distilled"
    assert second == {"error": "empty_query", "message": "queries[1] is empty."}
    assert ["Latency" in blob for blob in made.metrics()] == [True] * 2


def test_batch_of_mistakes_only_is_answered_all_the_same(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    assert [answer["error"] for answer in ask(made, None, "")] == ["invalid_query", "empty_query"]
    assert made.bedrock.calls == []


@pytest.mark.parametrize(
    ("says", "source"),
    [
        (student("no weights"), "base"),
        (student(client_error("ThrottlingException", 429)), "base"),
        (healthy(**{STUDENT: "", BASE_MODEL: client_error("AccessDeniedException", 403)}), "static"),
    ],
)
def test_every_query_of_a_batch_has_its_fallbacks(bench: MakeBench, says: Any, source: str) -> None:
    made = bench(says, TableDouble(LIVE_ROUTE))
    assert {answer["source"] for answer in ask(made, *(f"q {n}" for n in range(30)))} == {source}


def test_batch_ends_with_its_own_budget(bench: MakeBench) -> None:
    """16 queries take 150 s, so that all 80 would take 750 s; the last have no time left."""
    made = bench(
        healthy(**{STUDENT: 150.0, BASE_MODEL: 150.0}),
        TableDouble(LIVE_ROUTE),
        time_budget_ms=380_020,
        batch_time_budget_ms=380_020,
    )
    made.stopwatch.in_step(SIDE_BY_SIDE)
    answers = ask(made, *(f"q {n}" for n in range(80)))
    assert made.stopwatch.time == pytest.approx(380)
    assert {answer["source"] for answer in answers[:16]} == {"distilled"}
    assert {answer["source"] for answer in answers[16:32]} == {"static"}, "neither model answers in 115 s"
    assert {answer["reason"] for answer in answers[32:]} == {"no_time"}


def test_query_of_a_batch_ends_with_its_own_budget(bench: MakeBench) -> None:
    made = bench(
        healthy(**{STUDENT: 2000.0, BASE_MODEL: 2000.0}),
        TableDouble(LIVE_ROUTE),
        time_budget_ms=200_020,
        batch_time_budget_ms=5_000_000,
    )
    made.stopwatch.in_step(SIDE_BY_SIDE)
    answers = ask(made, *(f"q {n}" for n in range(16)))
    assert {answer["source"] for answer in answers} == {"static"}
    assert [answer["latency_ms"] for answer in answers] == [pytest.approx(200_000)] * 16


def test_latency_includes_the_wait_for_others_of_the_batch(bench: MakeBench) -> None:
    """16 queries run at a time; the metric `Latency` counts each from its own start."""
    made = bench(Echo(seconds=10.0), TableDouble(LIVE_ROUTE))
    made.stopwatch.in_step(SIDE_BY_SIDE)
    answers = ask(made, *(f"query {number}" for number in range(32)), "query 31")
    assert {answer["source"] for answer in answers} == {"distilled"}
    assert [answer["latency_ms"] for answer in answers] == [10_000] * 16 + [20_000] * 17
    latencies = [blob["Latency"] for blob in made.metrics() if "Latency" in blob]
    assert latencies == [10_000] * 32 + [0]


def test_functions_own_end_bounds_a_batch(bench: MakeBench) -> None:
    made = bench(
        healthy(**{STUDENT: 2000.0, BASE_MODEL: 2000.0}),
        TableDouble(LIVE_ROUTE),
        time_budget_ms=900_000,
        batch_time_budget_ms=900_000,
    )
    made.stopwatch.in_step(2)
    ask(made, "dog", "cat", context=ContextDouble(left=300_020))
    assert made.stopwatch.time == pytest.approx(300)


def test_endpoint_with_an_open_circuit_is_probed_by_one_query_of_a_batch(bench: MakeBench) -> None:
    made = bench(healthy(**{STUDENT: client_error("InternalServerException", 500)}), TableDouble(LIVE_ROUTE))
    for number in range(5):
        made.ask(f"before {number}")
    asked = made.bedrock.asked(STUDENT)
    made.clock.time += 11
    ask(made, *(f"q {n}" for n in range(20)))
    assert made.bedrock.asked(STUDENT) - asked <= 2  # the probe and one retry


def test_http_answer_is_one_document(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    event = {
        "routeKey": "POST /routes",
        "requestContext": {"http": {"method": "POST"}},
        "body": json.dumps({"queries": ["dog", 7]}),
    }
    answered = made.router.handle(event)
    first, second = json.loads(answered["body"])["answers"]
    assert (answered["statusCode"], first["weights"]["audio"]) == (200, 0.8)
    assert STUDENT_SAYS.split()[1] == "80"
    assert second["error"] == "invalid_query"


def test_batch_that_runs_out_of_time_opens_no_circuit(bench: MakeBench) -> None:
    """An endpoint that answers in 60 s has not failed if it was given less time."""
    echo = Echo(seconds=60.0)
    made = bench(echo, TableDouble(LIVE_ROUTE), time_budget_ms=400_020, batch_time_budget_ms=150_020)
    made.stopwatch.in_step(SIDE_BY_SIDE)
    answers = ask(made, *(f"query {number}" for number in range(60)))
    found = Counter((answer["source"], answer["reason"]) for answer in answers)
    # The second 16 have 90 s, half of it for the student, and their base model 45 s: both are too few.
    assert found == {("distilled", None): 16, ("static", "timed_out"): 16, ("static", "no_time"): 28}
    assert not [log for log in made.logs() if log["message"] == "circuit opened"]
    echo.seconds = 0.0
    assert made.ask("query 61")["source"] == "distilled"
