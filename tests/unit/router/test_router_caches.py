"""The router's caches of answers and of the route."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

from distilled_router.release.route import Route, Share
from distilled_router.task.task import Task
from router.service import BASE_CACHE_SECONDS
from tests.unit.router.doubles import BASE_MODEL, TableDouble, client_error
from tests.unit.router.scenes import (
    CANDIDATE,
    LIVE_ROUTE,
    STUDENT,
    STUDENT_SAYS,
    MakeBench,
    assert_weights,
    healthy,
    student,
)


def test_same_query_is_answered_from_the_cache(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    first, second = made.ask("Dog barking"), made.ask("  Dog   barking ")
    assert (first["cached"], second["cached"]) == (False, True)
    assert {**first, "cached": True, "latency_ms": 0} == {**second, "latency_ms": 0}
    assert len(made.bedrock.calls) == 1
    assert made.metrics()[1]["CacheHits"] == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the us office", "the US office"),
        ("dog barking", "\uff44og barking"),
        ("dog barking", "d\u043eg barking"),
        ("x\u00b2", "x2"),
        ("dog barking", "dog\u200b barking"),
    ],
)
def test_look_alikes_are_asked_and_kept_apart(bench: MakeBench, one: str, other: str) -> None:
    """A caller must not choose another caller's answer. Each text is asked as it is kept."""
    made = bench(healthy(**{STUDENT: [STUDENT_SAYS, "0 0 100 0"]}), TableDouble(LIVE_ROUTE))
    answers = [made.ask(query) for query in (one, other, one, other)]
    assert [answer["cached"] for answer in answers] == [False, False, True, True]
    assert [answer["intent"] for answer in answers] == ["audio", "transcription"] * 2
    texts = [call["messages"][0]["content"][0]["text"] for call in made.bedrock.calls]
    assert texts == [one, other]
    together = made.router.handle({"queries": [other, one]})["answers"]
    assert [answer["intent"] for answer in together] == ["transcription", "audio"]


def test_cached_answer_is_the_callers_own(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    made.ask()["weights"].clear()
    assert len(made.ask()["weights"]) == 4


def test_answers_age(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), cache_seconds=60)
    made.ask()
    made.clock.time += 60
    assert not made.ask()["cached"]


def test_base_answers_are_kept_for_a_short_time(bench: MakeBench) -> None:
    made = bench(student(client_error("AccessDeniedException", 403)), TableDouble(LIVE_ROUTE))
    made.ask()
    answer = made.ask()
    assert (answer["cached"], answer["reason"]) == (True, "denied")
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    made.clock.time += BASE_CACHE_SECONDS
    assert made.ask()["source"] == "distilled"


def test_static_answers_are_not_kept(bench: MakeBench) -> None:
    made = bench(healthy(**{STUDENT: None, BASE_MODEL: None}), TableDouble(LIVE_ROUTE))
    made.ask()
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    assert made.ask()["source"] == "distilled"


def test_new_route_version_empties_the_cache(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), route_seconds=10)
    made.ask()
    made.table.item = Route(4, LIVE_ROUTE.shares).to_item()
    made.clock.time += 9
    assert made.ask()["cached"], "the route is still young"
    made.clock.time += 1
    assert not made.ask()["cached"]


def test_expired_candidates_answers_expire_with_it(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble())
    end = int(made.clock.time) + 20
    candidate = Share("bbbbbbbbbbbb", CANDIDATE, 1.0, expires_at=end)
    made.table.item = Route(4, (*LIVE_ROUTE.shares, candidate)).to_item()
    assert made.ask()["release"] == "bbbbbbbbbbbb"
    made.clock.time = end
    answer = made.ask()
    assert (answer["release"], answer["cached"]) == ("aaaaaaaaaaaa", False)


def test_route_is_read_once_in_its_time(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), route_seconds=10)
    for number in range(20):
        made.ask(f"query {number}")
    assert made.table.reads == [
        {"TableName": "releases", "Key": {"id": {"S": "video-router-test/route"}}, "ConsistentRead": False}
    ]
    made.clock.time += 10
    made.ask()
    assert len(made.table.reads) == 2


def test_bad_requests_read_nothing(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    assert made.ask("")["error"] == "empty_query"
    assert made.table.reads == []
    assert made.output() == []


@pytest.mark.parametrize(
    ("fails", "item"),
    [
        (client_error("AccessDeniedException", 400), None),
        (client_error("ProvisionedThroughputExceededException", 400), None),
        (EndpointConnectionError(endpoint_url="https://dynamodb"), None),
        (RuntimeError("a bug"), None),
        (3600.0, None),
        (None, {"id": "route", "version": "four", "shares": []}),
        (None, {"id": "route", "version": 4, "shares": "none"}),
        (None, {"id": "route", "version": 4, "shares": [{"digest": "cccccccccccc"}]}),
    ],
)
def test_last_good_route_serves_while_none_can_be_read(
    bench: MakeBench, fails: Exception | float | None, item: dict[str, Any] | None
) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), route_seconds=10)
    made.ask("query 0")
    made.table.fails, made.table.item = fails, item
    made.clock.time += 10
    assert made.ask("query 1")["release"] == "aaaaaaaaaaaa"
    blob = made.metrics()[-1]
    # Not an error of the release that the route chose before.
    assert (blob["release"], "RouterErrors" in blob) == ("aaaaaaaaaaaa", False)
    assert "route" in blob["failures"]
    reads = len(made.table.reads)
    assert reads <= 3, "one more attempt at most"
    made.ask("query 2")
    assert len(made.table.reads) == reads, "not tried again at every request"
    assert made.route_errors() == [1]


HALF_BROKEN: dict[str, Any] = {
    "id": "route",
    "version": Decimal(9),
    "shares": [{"digest": "cccccccccccc"}, {"digest": "dddddddddddd", "endpoint": CANDIDATE, "share": 1}],
}


def test_half_broken_item_does_not_replace_the_last_good_one(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), route_seconds=10)
    made.ask()
    made.table.item = HALF_BROKEN
    made.clock.time += 10
    assert made.ask("query 1")["release"] == "aaaaaaaaaaaa"
    assert made.route_errors() == [1]


def test_what_can_be_read_of_a_half_broken_item_is_better_than_no_route(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(HALF_BROKEN), route_seconds=10)
    assert made.ask()["release"] == "dddddddddddd"
    made.table.item = {**HALF_BROKEN, "shares": [{}, {**HALF_BROKEN["shares"][1], "endpoint": STUDENT}]}
    made.clock.time += 10
    made.ask("query 1")
    assert made.bedrock.asked(STUDENT) == 1
    made.table.item = LIVE_ROUTE.to_item()
    made.clock.time += 10
    assert made.ask("query 2")["release"] == "aaaaaaaaaaaa"


@pytest.mark.parametrize(
    "first",
    [
        client_error("ThrottlingException", 400),
        client_error("ProvisionedThroughputExceededException", 400),
        client_error("InternalServerError", 500),
        ConnectionClosedError(endpoint_url="https://dynamodb"),
        EndpointConnectionError(endpoint_url="https://dynamodb"),
        3600.0,
    ],
)
@pytest.mark.parametrize("is_known", [False, True])
def test_route_is_read_once_more(bench: MakeBench, first: Exception | float, is_known: bool) -> None:
    """After a freeze, the first connection may be dead; a throttled table answers a moment later."""
    made = bench(healthy(), TableDouble(LIVE_ROUTE), route_seconds=10)
    if is_known:
        made.ask("query 0")
        made.clock.time += 10
    made.table.item = Route(5, (Share("bbbbbbbbbbbb", CANDIDATE, 1.0),)).to_item()
    made.table.fails = [first, None]
    before = len(made.table.reads)
    answer = made.ask("query 1")
    assert (answer["source"], answer["release"]) == ("distilled", "bbbbbbbbbbbb")
    assert len(made.table.reads) - before == 2
    assert made.route_errors() == []


def test_refused_read_is_not_repeated(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    made.table.fails = client_error("AccessDeniedException", 400)
    made.ask()
    assert len(made.table.reads) == 1


@pytest.mark.parametrize("item", [None, Route(4).to_item()])
def test_emptied_route_switches_distillation_off(bench: MakeBench, item: dict[str, Any] | None) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), route_seconds=10)
    made.ask()
    made.table.item = item
    made.clock.time += 10
    answer = made.ask()
    assert (answer["source"], answer["reason"]) == ("base", "no_release")
    assert "RouterErrors" not in made.metrics()[-1]


@pytest.mark.parametrize("expiry", [None, "soon", True, {"a"}, [], b"1800000100"], ids=repr)
def test_candidate_with_an_expiry_of_another_type_takes_no_requests(bench: MakeBench, expiry: Any) -> None:
    """Without an expiry it would be the live release."""
    candidate = {"digest": "b" * 12, "endpoint": CANDIDATE, "share": Decimal(1), "expires_at": expiry}
    live_share = {"digest": "a" * 12, "endpoint": STUDENT, "share": Decimal(1)}
    made = bench(
        healthy(), TableDouble({"id": "route", "version": Decimal(1), "shares": [candidate, live_share]})
    )
    assert made.ask()["release"] == "a" * 12
    assert made.bedrock.asked(CANDIDATE) == 0


@pytest.mark.parametrize("fails", [client_error("ResourceNotFoundException"), 3600.0])
def test_unreachable_table_at_first_means_base_model_then_recovers(
    bench: MakeBench, fails: Exception | float
) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE))
    made.table.fails = fails
    for query in ("dog", "cat"):  # the second one does not try to read
        answer = made.ask(query)
        assert (answer["source"], answer["reason"]) == ("base", "no_route")
    made.table.fails = None
    made.clock.time += 5
    assert made.ask()["source"] == "distilled"


def test_shares_split_the_requests(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(), quota_requests_per_minute=10_000)
    candidate = Share("bbbbbbbbbbbb", CANDIDATE, 0.25, expires_at=int(made.clock.time) + 100)
    made.table.item = Route(4, (*LIVE_ROUTE.shares, candidate)).to_item()
    releases = [made.ask(f"query {number}")["release"] for number in range(400)]
    assert releases.count("bbbbbbbbbbbb") == pytest.approx(100, abs=30)
    assert releases.count("aaaaaaaaaaaa") + releases.count("bbbbbbbbbbbb") == 400


def test_share_is_chosen_by_the_text_that_is_asked(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble())
    candidate = Share("bbbbbbbbbbbb", CANDIDATE, 0.5, expires_at=int(made.clock.time) + 100)
    route = Route(4, (*LIVE_ROUTE.shares, candidate))
    made.table.item = route.to_item()
    for number in range(20):
        chosen = route.choose(f"Red car {number}", made.clock.time)
        assert chosen
        assert made.ask(f" Red  car {number}")["release"] == chosen.digest


@pytest.mark.parametrize("jump", [-1e9, -3600.0, -1.0, 1.0, 3600.0, 1e9])
def test_wall_clock_that_jumps_prevents_no_answer(bench: MakeBench, task: Task, jump: float) -> None:
    """With a known route, a cached answer, an open circuit, and a candidate's share that expires."""
    made = bench(student(client_error("AccessDeniedException", 403)), TableDouble(), cache_seconds=60)
    end = int(made.clock.time) + 600
    candidate = Share("bbbbbbbbbbbb", CANDIDATE, 0.5, expires_at=end)
    made.table.item = Route(4, (*LIVE_ROUTE.shares, candidate)).to_item()
    for number in range(40):
        made.ask(f"query {number}")
    assert all(made.ask(f"query {number}")["cached"] for number in range(40))
    made.clock.time += jump
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    answers = [made.ask(f"query {number}") for number in range(80)]
    for answer in answers:
        assert_weights(answer, task)
        assert answer["source"] in ("distilled", "base")
    expired = made.clock.time >= end
    assert any(answer["release"] == "bbbbbbbbbbbb" for answer in answers) is not expired
    if abs(jump) > 1:  # the circuit is tried again, and cached answers are asked for again
        assert {answer["source"] for answer in answers} == {"distilled"}
