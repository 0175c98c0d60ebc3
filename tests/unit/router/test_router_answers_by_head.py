"""A classification head's place among the sources of an answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random
from typing import Any

import pytest

from distilled_router.head.model import Head
from distilled_router.release.route import HeadFile, Route, Share
from distilled_router.task.task import Task
from router import service
from router.service import BASE_CACHE_SECONDS
from tests.unit.router import object_store as s3
from tests.unit.router.conftest import Bench
from tests.unit.router.doubles import BASE_MODEL, BedrockDouble, TableDouble, client_error
from tests.unit.router.heads import ALL, head_file, settle, store_of
from tests.unit.router.object_store import ObjectStore
from tests.unit.router.scenes import (
    BASE_SAYS,
    CANDIDATE,
    STUDENT,
    STUDENT_SAYS,
    MakeBench,
    assert_weights,
    healthy,
    student,
)

LIVE = "aaaaaaaaaaaa"
SURE, UNSURE = "engine roaring two", "which invoice did we pay in may"
LONG = f"{SURE} {'and again ' * 20}"
DOWN = {STUDENT: client_error("ServiceUnavailableException", 503), BASE_MODEL: client_error("AccessDenied")}


@pytest.fixture
def files() -> Iterator[tuple[ObjectStore, list[HeadFile]]]:
    """Return a running store with three releases' heads, which differ in their answers."""
    store, files = store_of(*(head_file(turned) for turned in range(3)))
    with store.running():
        yield store, files
        settle()


@pytest.fixture
def make(bench: MakeBench, files: tuple[ObjectStore, list[HeadFile]]) -> Callable[..., Bench]:
    """Return a factory of routers that have loaded their head: `make(bedrock, head_mode="first", ...)`."""
    store, names = files

    def create(bedrock: BedrockDouble, *, head_off: bool = False, **variables: Any) -> Bench:
        route = Route(3, (Share(LIVE, STUDENT, 1.0, head=names[0]),), head_off=head_off)
        made = bench(bedrock, TableDouble(route), store, **variables)
        made.ask("to load the head")
        settle()
        made.bedrock.calls.clear()
        made.output()
        made.lines.clear()
        return made

    return create


def requests(made: Bench) -> list[dict[str, Any]]:
    """Return the metrics of requests so far, without those of a model that was asked besides."""
    return [document for document in made.metrics() if "Latency" in document]


def test_head_is_sure_of_one_query_only(task: Task) -> None:
    """What the tests of this file need of it."""
    head = Head.read(head_file(), task.labels)
    assert head.accepts(head.answer(SURE))
    assert not head.accepts(head.answer(UNSURE))
    assert head.is_too_long(LONG)
    assert task.dominant(head.answer(SURE).weights) == "audio"


def test_head_answers_first_what_it_is_sure_of(make: MakeBench, task: Task) -> None:
    made = make(healthy(), head_mode="first")
    answer = made.ask(SURE)
    assert_weights(answer, task)
    assert (answer["source"], answer["reason"], answer["release"]) == ("head", None, LIVE)
    assert answer["intent"] == "audio"
    assert made.bedrock.calls == []
    again = made.ask(SURE)
    assert {**again, "latency_ms": 0} == {**answer, "cached": True, "latency_ms": 0}
    made.clock.time += 300
    assert not made.ask(SURE)["cached"]
    assert [line["HeadAnswers"] for line in made.metrics()] == [1] * 3


@pytest.mark.parametrize("query", [UNSURE, LONG])
def test_student_answers_what_the_head_is_not_sure_of(make: MakeBench, query: str) -> None:
    made = make(healthy(), head_mode="first")
    answer = made.ask(query)
    assert (answer["source"], answer["reason"], answer["release"]) == ("distilled", None, LIVE)
    assert made.metrics()[0]["HeadAnswers"] == 0
    assert made.ask(query)["cached"]


def test_too_long_a_query_costs_the_head_nothing(make: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(healthy(), head_mode="first")
    monkeypatch.setattr(Head, "answer", None)
    assert made.ask(LONG)["source"] == "distilled"
    assert made.logs() == []


@pytest.mark.parametrize("mode", ["first", "last_resort"])
@pytest.mark.parametrize("query", [UNSURE, LONG])
def test_head_is_the_last_resort_with_the_students_reason(
    make: MakeBench, task: Task, mode: str, query: str
) -> None:
    made = make(healthy(**DOWN), head_mode=mode)
    answer = made.ask(query)
    assert_weights(answer, task)
    assert (answer["source"], answer["reason"], answer["release"]) == ("head", "unavailable", LIVE)
    assert made.bedrock.asked(BASE_MODEL) == 1
    (document,) = requests(made)
    assert (document["Fallback"], document["StaticAnswers"]) == (1, 1)
    assert document["failures"] == {"base": "error", "distilled": "unavailable"}
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    answer = made.ask(query)
    assert (answer["source"], answer["cached"]) == ("distilled", False), "a last resort is not kept"


def test_last_resort_leaves_all_other_answers_to_the_models(make: MakeBench) -> None:
    made = make(student(client_error("ServiceUnavailableException", 503)), head_mode="last_resort")
    answer = made.ask(SURE)
    assert (answer["source"], answer["reason"], answer["release"]) == ("base", "unavailable", None)
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    assert made.ask("another query")["source"] == "distilled"


def test_caller_over_its_allowance_gets_the_heads_answer(make: MakeBench) -> None:
    made = make(healthy(), head_mode="last_resort", quota_requests_per_minute=8)
    answers = made.ask_all([f"query {number}" for number in range(8)], user="arn:aws:iam::1:user/one")
    last = Counter((answer["source"], answer["reason"]) for answer in answers if answer["source"] == "head")
    assert set(last) == {("head", "over_allowance")}
    documents = [document for document in made.metrics() if document["source"] == "head"]
    assert all("Fallback" not in document for document in documents)
    refused = next(number for number, answer in enumerate(answers) if answer["source"] == "head")
    other = made.ask(f"query {refused}", user="arn:aws:iam::1:user/other")
    assert (other["source"], other["cached"]) == ("distilled", False)


@pytest.mark.parametrize("mode", ["first", "last_resort"])
def test_all_of_bedrock_down_is_answered_by_the_head_alone(make: MakeBench, task: Task, mode: str) -> None:
    made = make(healthy(**DOWN), head_mode=mode)
    answers = [made.ask(f"{SURE} {number}") for number in range(20)]
    answers += made.ask_all([f"{UNSURE} {number}" for number in range(80)])
    assert {answer["source"] for answer in answers} == {"head"}
    assert {answer["release"] for answer in answers} == {LIVE}
    assert {answer["reason"] for answer in answers} <= {None, "unavailable", "circuit_open"}
    for answer in answers:
        assert_weights(answer, task)
    first = sum(answer["reason"] is None for answer in answers)
    assert sum(document.get("StaticAnswers", 0) for document in requests(made)) == len(answers) - first


def test_without_a_loaded_head_static_weights_are_the_last_resort(
    bench: MakeBench, files: tuple[ObjectStore, list[HeadFile]]
) -> None:
    store, names = files
    for head in (None, HeadFile("nowhere", names[0].sha256)):
        route = Route(3, (Share(LIVE, STUDENT, 1.0, head=head),))
        made = bench(healthy(**DOWN), TableDouble(route), store, head_mode="first")
        for _ in range(3):
            answer = made.ask(SURE)
            settle()
            assert (answer["source"], answer["reason"], answer["release"]) == ("static", "unavailable", None)
        assert all("HeadAnswers" not in document for document in made.metrics())


def test_base_model_answers_without_a_release_whatever_heads_there_are(make: MakeBench) -> None:
    made = make(healthy(**{BASE_MODEL: None}), head_mode="first")
    made.table.item = Route(4).to_item()
    made.clock.time += 11
    answer = made.ask(SURE)
    assert (answer["source"], answer["reason"], answer["release"]) == ("static", "empty_output", None)


@pytest.mark.parametrize("mode", ["first", "last_resort"])
def test_route_that_turns_the_head_off_leaves_all_as_without_one(
    make: MakeBench, bench: MakeBench, files: tuple[ObjectStore, list[HeadFile]], mode: str
) -> None:
    """Answers, calls, logs and metrics."""
    store, names = files
    found = []
    for head_off, storage in ((True, store), (False, None)):
        route = Route(3, (Share(LIVE, STUDENT, 1.0, head=names[0]),), head_off=head_off)
        made = bench(healthy(), TableDouble(route), storage, head_mode=mode)
        answers: list[dict[str, Any]] = []
        for query in (SURE, UNSURE, LONG):
            for says in (STUDENT_SAYS, None, client_error("ThrottlingException", 429)):
                for base in (BASE_SAYS, None):
                    made.bedrock.says.update({STUDENT: says, BASE_MODEL: base})
                    answers.append(made.ask(f"{query} {len(answers)}"))
                    answers.append(made.ask(query))
        settle()
        for answer in answers:
            answer["latency_ms"] = 0
        lines = [without_times(line) for line in made.output()]
        found.append((answers, made.bedrock.calls, lines))
    for one, other in zip(*found, strict=True):
        assert one == other
    assert store.requests == []


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the log without what differs from one request to the next."""
    kept = {key: value for key, value in line.items() if key not in ("_aws", "Latency", "timestamp")}
    return {key: value for key, value in kept.items() if key not in ("service", "location")}


def test_switch_that_says_no_turns_nothing_off(make: MakeBench) -> None:
    """As a person may write it in DynamoDB's console."""
    made = make(healthy(), head_mode="first")
    assert made.table.item
    made.table.item |= {"head_off": False, "version": 4}
    made.clock.time += 11
    assert made.ask(SURE)["source"] == "head"
    made.table.item |= {"head_off": True, "version": 5}
    made.clock.time += 11
    assert made.ask(SURE)["source"] == "distilled"


# Exploration.


def test_explored_query_is_the_students_and_measures_the_head(make: MakeBench) -> None:
    made = make(healthy(), head_mode="first", explore_share=1.0)
    answer = made.ask(SURE)
    assert (answer["source"], answer["reason"]) == ("distilled", None)
    assert made.ask(SURE)["cached"]
    made.ask(UNSURE)
    first, again, unsure = made.metrics()
    # Audio 1 against visual 0.1, audio 0.8, metadata 0.1.
    assert first["HeadDifference"] == pytest.approx(0.1)
    assert "HeadDifference" not in again
    assert "HeadDifference" not in unsure


def test_explored_query_that_the_student_fails_is_the_heads_and_a_fallback(make: MakeBench) -> None:
    made = make(student(client_error("AccessDeniedException", 403)), head_mode="first", explore_share=1.0)
    answer = made.ask(SURE)
    assert (answer["source"], answer["reason"], answer["release"]) == ("head", "denied", LIVE)
    assert made.bedrock.asked(BASE_MODEL) == 0
    assert made.ask(SURE)["cached"]
    documents = requests(made)
    assert [document["Fallback"] for document in documents] == [1, 1]
    assert "HeadDifference" not in documents[0]
    made.clock.time += BASE_CACHE_SECONDS
    assert not made.ask(SURE)["cached"]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.05, 80, 120), (1.0, 2000, 2000)])
def test_share_of_sure_queries_is_explored(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, share: float, least: int, most: int
) -> None:
    monkeypatch.setattr(service, "jitter", Random(7).uniform)
    store, names = store_of(head_file(0, ALL))
    with store.running():
        route = Route(3, (Share(LIVE, STUDENT, 1.0, head=names[0]),))
        made = bench(
            healthy(),
            TableDouble(route),
            store,
            head_mode="first",
            explore_share=share,
            quota_requests_per_minute=1_000_000,
        )
        made.ask("to load")
        settle()
        made.bedrock.calls.clear()
        sources = Counter(made.ask(f"red car {number}")["source"] for number in range(2000))
    assert sources["head"] + sources["distilled"] == 2000
    assert least <= sources["distilled"] == made.bedrock.asked(STUDENT) <= most


def test_nothing_is_explored_in_the_other_mode(make: MakeBench) -> None:
    made = make(healthy(), head_mode="last_resort", explore_share=1.0)
    made.ask(SURE)
    assert "HeadDifference" not in made.metrics()[0]


# Bugs of the head.


def broken(*_: object) -> None:
    raise ZeroDivisionError("quotes the query")


@pytest.mark.parametrize("method", ["is_too_long", "answer", "accepts"])
def test_bug_in_the_head_leaves_the_query_to_the_student(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    made = make(healthy(), head_mode="first")
    monkeypatch.setattr(Head, method, broken)
    answer = made.ask(SURE)
    assert (answer["source"], answer["reason"]) == ("distilled", None)
    assert made.metrics()[0]["RouterErrors"] == 1
    (line,) = made.logs()
    assert (line["message"], line["source"], line["error"]) == (
        "unexpected error",
        "head",
        "ZeroDivisionError",
    )


@pytest.mark.parametrize("mode", ["first", "last_resort"])
def test_bug_in_the_last_resort_leaves_static_weights(
    make: MakeBench, monkeypatch: pytest.MonkeyPatch, mode: str, task: Task
) -> None:
    made = make(healthy(**DOWN), head_mode=mode)
    monkeypatch.setattr(Head, "answer", broken)
    answer = made.ask(SURE)
    assert (answer["source"], answer["reason"], answer["release"]) == ("static", "unavailable", None)
    assert answer["weights"] == task.static_weights
    assert [line["error"] for line in made.logs() if line["message"] == "unexpected error"] == [
        "ZeroDivisionError"
    ]


def test_bug_in_following_the_route_costs_no_answer(make: MakeBench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(healthy(), head_mode="first")
    monkeypatch.setattr("router.heads.Heads.follow", broken)
    assert made.ask(UNSURE)["source"] == "distilled"


# Releases change.


def test_answer_by_a_former_route_is_not_kept_for_the_next(bench: MakeBench) -> None:
    """A query that is on its way while the route changes: the cache is emptied, and then it ends."""
    began, go_on = threading.Event(), threading.Event()

    class Slow(BedrockDouble):
        def converse(self, **request: Any) -> dict[str, Any]:
            if request["modelId"] == STUDENT:
                began.set()
                assert go_on.wait(60)
            return super().converse(**request)

    bedrock = Slow(**{STUDENT: STUDENT_SAYS, CANDIDATE: "0 0 100 0", BASE_MODEL: BASE_SAYS})
    made = bench(bedrock, TableDouble(Route(3, (Share(LIVE, STUDENT, 1.0),))))
    with ThreadPoolExecutor(1) as pool:
        former = pool.submit(made.ask)
        assert began.wait(60)
        made.table.item = Route(4, (Share(LIVE, CANDIDATE, 1.0),)).to_item()
        made.clock.time += 11
        assert made.ask("another query")["intent"] == "transcription"
        go_on.set()
        assert former.result()["intent"] == "audio"
    answer = made.ask()
    assert (answer["intent"], answer["cached"]) == ("transcription", False)


def roll_outs(files: list[HeadFile], shared: HeadFile, random: Random) -> Iterator[Route]:
    """Generate routes: roll-out, rollback and gradual rollback of three releases, and a switch.

    One of them gets another head under the same digest, as if it was trained again.
    """
    digests = [f"{place}" * 12 for place in "abc"]
    heads = dict(zip(digests, files, strict=True))
    version = 0
    while True:
        live, candidate, former = random.sample(digests, 3)
        heads["c" * 12] = random.choice((files[2], shared))
        for parts in ({candidate: 0.05}, {candidate: 0.5}, {candidate: 0.5, former: 0.3}, {}):
            version += 1
            shares = [Share(live, f"arn:{live}", 1.0, head=heads[live])]
            shares += [
                Share(digest, f"arn:{digest}", part, expires_at=9_999_999_999, head=heads[digest])
                for digest, part in parts.items()
            ]
            yield Route(version, tuple(shares), head_off=random.random() < 0.05)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_no_query_is_answered_by_another_releases_head(bench: MakeBench, task: Task, seed: int) -> None:
    """10,000 queries, alone and in batches, by 12 threads, while the route changes 100 times."""
    contents = [head_file(turned, ALL) for turned in range(4)]
    intents = {
        content: task.dominant(Head.read(content, task.labels).answer("red car").weights)
        for content in contents
    }
    assert len(set(intents.values())) == 4
    store, files = store_of(*contents)
    of = {digest * 12: {intents[contents[place]]} for place, digest in enumerate("abc")}
    of["c" * 12].add(intents[contents[3]])
    models: dict[str, Any] = {f"arn:{digest}": client_error("InternalServerException", 500) for digest in of}
    routes, changes = roll_outs(files[:3], files[3], Random(seed)), count(1)
    changing = threading.Lock()
    with store.running():
        made = bench(
            BedrockDouble(**models, **{BASE_MODEL: client_error("InternalServerException", 500)}),
            TableDouble(Route()),
            store,
            head_mode="first",
            route_seconds=0.01,
            quota_requests_per_minute=10_000_000,
        )

        def change() -> list[dict[str, Any]]:
            """Change the route. Of each third, wait for the heads first, and return answers by it."""
            with changing:
                answers = []
                if next(changes) % 3 == 0:
                    made.clock.time += 0.01
                    made.ask("red car")
                    settle()
                    answers = [made.ask(f"red car {place}") for place in range(20)]
                made.table.item = next(routes).to_item()
                return answers

        def ask(number: int) -> list[dict[str, Any]]:
            queries = [f"red car {(number * 7 + place) % 50}" for place in range(20)]
            made.clock.time += 0.002
            more = change() if number % 5 == 0 else []
            if number % 2:
                return more + made.ask_all(queries)
            return more + [made.ask(query) for query in queries]

        with ThreadPoolExecutor(12) as pool:
            answers = [answer for found in pool.map(ask, range(500)) for answer in found]
        settle()
    assert len(answers) == 10_000 + 33 * 20
    by_head = [answer for answer in answers if answer["source"] == "head"]
    wrong = [answer for answer in by_head if answer["intent"] not in of[answer["release"]]]
    assert wrong == []
    assert {answer["release"] for answer in by_head} == set(of)
    # All that waited for the heads, less those of routes that turn heads off; others depend on the machine.
    assert len(by_head) > 500
    assert any(answer["cached"] for answer in by_head)
    assert {answer["source"] for answer in answers} == {"head", "static"}


def test_head_of_the_release_that_is_chosen_answers(
    bench: MakeBench, files: tuple[ObjectStore, list[HeadFile]]
) -> None:
    """Of a candidate while its share counts, then of the live release."""
    store, (live, candidate, _) = files
    made = bench(healthy(), TableDouble(), store, head_mode="first")
    end = int(made.clock.time) + 20
    shares = (
        Share(LIVE, STUDENT, 1.0, head=live),
        Share("bbbbbbbbbbbb", CANDIDATE, 1.0, end, head=candidate),
    )
    made.table.item = Route(4, shares).to_item()
    made.ask("to load")
    settle()
    answer = made.ask(SURE)
    assert (answer["source"], answer["release"], answer["intent"]) == (
        "head",
        "bbbbbbbbbbbb",
        "transcription",
    )
    made.clock.time = end
    answer = made.ask(SURE)
    assert (answer["source"], answer["release"], answer["intent"]) == ("head", LIVE, "audio")
    assert not answer["cached"]


def test_first_query_does_not_wait_for_the_head(
    bench: MakeBench, files: tuple[ObjectStore, list[HeadFile]]
) -> None:
    store, names = files
    go_on = threading.Event()

    def wait(connection: Any, content: bytes) -> None:
        assert go_on.wait(60)
        s3.whole(connection, content)

    store.sends[names[0].key] = wait
    made = bench(
        healthy(),
        TableDouble(Route(3, (Share(LIVE, STUDENT, 1.0, head=names[0]),))),
        store,
        head_mode="first",
    )
    assert made.ask(SURE)["source"] == "distilled"
    assert [thread for thread in threading.enumerate() if thread.name == "heads"], "it is still loaded"
    go_on.set()
    settle()
    made.clock.time += 300
    assert made.ask(SURE)["source"] == "head"
