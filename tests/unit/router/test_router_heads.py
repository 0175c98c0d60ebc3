"""Loading of classification heads: never in an answer's way, whatever S3 sends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger

from distilled_router.head import artifact
from distilled_router.release.route import HeadFile, Route, Share
from distilled_router.task.task import Task
from router.heads import MOST_HEADS, MOST_THREADS, RETRY_SECONDS, Heads
from tests.unit.router import object_store as s3
from tests.unit.router.doubles import WallClock
from tests.unit.router.heads import head_file, named, settle, store_of
from tests.unit.router.object_store import BUCKET, ObjectStore, Send

LIVE, CANDIDATE, FORMER = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def route_of(*files: HeadFile | None, version: int = 1, head_off: bool = False) -> Route:
    """Return a route with a live release and candidates, with these heads."""
    shares = [
        Share(digest, f"arn:{digest}", 0.5, expires_at=None if place == 0 else 9_999_999_999, head=file)
        for place, (digest, file) in enumerate(zip((LIVE, CANDIDATE, FORMER), files, strict=False))
    ]
    return Route(version, tuple(shares), head_off=head_off)


@dataclass
class World:
    """A store with two heads, what loads them, and its clock and log."""

    store: ObjectStore
    files: list[HeadFile]
    heads: Heads
    clock: WallClock
    capture: pytest.CaptureFixture[str]

    def follow(self, route: Route) -> None:
        """Follow a route, and wait until what it needs is loaded or has failed."""
        self.heads.follow(route, self.clock())
        settle()

    def loaded(self, route: Route) -> list[str]:
        """Return the releases that have a head."""
        return [share.digest for share in route.shares if self.heads.of(share)]

    def warnings(self) -> list[dict[str, Any]]:
        """Return the log since the last call."""
        return [json.loads(line) for line in self.capture.readouterr().out.splitlines()]


@pytest.fixture
def make(task: Task, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., World]]:
    """Return a factory: `make(seconds=1.0)` for reading a file within so many seconds."""
    store, files = store_of(head_file(), head_file(1))
    with store.running():

        def create(seconds: float = 30.0) -> World:
            logger = Logger(service=f"search-{uuid4()}")
            heads = Heads(store.client(seconds), BUCKET, task.labels, logger)
            return World(store, files, heads, WallClock(), capsys)

        yield create
        settle()


def test_heads_of_all_shares_are_loaded_and_belong_to_their_own(make: Callable[..., World]) -> None:
    world = make()
    route = route_of(*world.files)
    assert world.loaded(route) == []
    world.follow(route)
    answers = []
    for share in route.shares:
        head = world.heads.of(share)
        assert head
        answers.append(head.answer("dog barking").weights)
    assert [max(weights, key=weights.__getitem__) for weights in answers] == ["audio", "transcription"]
    world.follow(route)
    assert sorted(world.store.requests) == sorted(file.key for file in world.files)
    assert world.warnings() == []
    assert world.heads.of(Share(LIVE, "arn", 1.0)) is None
    assert world.heads.of(None) is None


def test_following_waits_for_nothing(make: Callable[..., World]) -> None:
    world = make()
    go_on = threading.Event()

    def wait(connection: Any, content: bytes) -> None:
        assert go_on.wait(60)
        s3.whole(connection, content)

    world.store.sends[world.files[0].key] = wait
    route = route_of(world.files[0])
    world.heads.follow(route, world.clock())
    assert world.loaded(route) == []
    assert not go_on.is_set()
    go_on.set()
    settle()
    assert world.loaded(route) == [LIVE]


FAULTS: dict[str, tuple[Send, str]] = {
    "denied": (s3.refused("403 Forbidden", "AccessDenied"), "refused: AccessDenied"),
    "missing": (s3.refused("404 Not Found", "NoSuchKey"), "refused: NoSuchKey"),
    "moved": (s3.refused("301 Moved Permanently", "PermanentRedirect"), "refused: PermanentRedirect"),
    "redirected": (
        s3.refused("307 Temporary Redirect", "TemporaryRedirect", "-", "location: http://127.0.0.1:9/"),
        "refused: TemporaryRedirect",
    ),
    "overloaded": (s3.refused("503 Slow Down", "SlowDown"), "refused: SlowDown"),
    "cut off": (s3.cut_off, "unreachable: ConnectionClosedError"),
    "cut off in chunks": (s3.chunks_cut_off, "unreachable: ConnectionClosedError"),
    "reset": (s3.reset, "unreachable: ConnectionClosedError"),
    "closed": (s3.closed, "unreachable: ConnectionClosedError"),
    "another protocol": (s3.no_http, "unreachable: ConnectionClosedError"),
    "50 MB": (s3.huge, "unreachable: ConnectionClosedError"),
    "50 MB in chunks": (s3.huge_in_chunks, "unreachable: ConnectionClosedError"),
    "silent": (s3.silent, "unreachable: ReadTimeoutError"),
    "slow": (s3.dribble, "unreachable: ReadTimeoutError"),
    "wrong length": (s3.too_short_a_length, "its SHA-256 is "),
    "flipped bit": (s3.flipped, "its SHA-256 is "),
    "a page": (s3.page, "its SHA-256 is "),
    "empty": (s3.nothing, "its SHA-256 is "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_costs_the_head_until_it_is_over(make: Callable[..., World], fault: str) -> None:
    """One line in the log, no second read within a minute, and the other release keeps its head."""
    send, problem = FAULTS[fault]
    # The other file, too, has to arrive in this time.
    world = make(seconds=1.5 if send in (s3.silent, s3.dribble) else 30.0)
    world.store.sends[world.files[0].key] = send
    route = route_of(*world.files)
    for _ in range(3):
        world.follow(route)
        world.clock.time += RETRY_SECONDS / 3 - 1
    assert world.loaded(route) == [CANDIDATE]
    assert world.store.requests.count(world.files[0].key) == 1
    world.clock.time += 3
    world.follow(route_of(*world.files))
    assert world.store.requests.count(world.files[0].key) == 2
    (warning,) = world.warnings()
    assert warning["message"] == "head not loaded"
    assert (warning["key"], warning["sha256"]) == (world.files[0].key, world.files[0].sha256)
    assert warning["problem"].startswith(problem)
    world.store.sends.clear()
    world.clock.time += RETRY_SECONDS
    world.follow(route)
    assert world.loaded(route) == [LIVE, CANDIDATE]
    assert world.warnings() == []


def test_object_that_is_no_head_of_this_task_is_not_used(make: Callable[..., World], task: Task) -> None:
    world = make()
    other = artifact.read(head_file(), task.labels)[0]
    contents = (
        head_file().replace(b'"metadata"', b'"subtitle"'),
        b"garbage" * 1000,
        b"",
        artifact.write(other, threshold=None, about={})[:-1],
    )
    for version, content in enumerate(contents):
        file = named(f"other-{version}", content)
        world.store.objects[file.key] = content
        route = route_of(file, version=version + 1)
        world.follow(route)
        assert world.loaded(route) == []
        (warning,) = world.warnings()
        assert not warning["problem"].startswith("unexpected")


def test_bug_in_the_head_costs_the_head(make: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise MemoryError("quoted")

    monkeypatch.setattr("router.heads.Head.read", read)
    world = make()
    world.follow(route_of(world.files[0]))
    (warning,) = world.warnings()
    assert warning["problem"] == "unexpected: MemoryError"


def test_nobody_there_costs_the_head(make: Callable[..., World], task: Task) -> None:
    world = make()
    nowhere = ObjectStore(url="http://127.0.0.1:9").client()
    world.heads = Heads(nowhere, BUCKET, task.labels, Logger(service=f"search-{uuid4()}"))
    world.follow(route_of(world.files[0]))
    (warning,) = world.warnings()
    assert warning["problem"] == "unreachable: EndpointConnectionError"


def test_new_version_of_the_route_tries_again_at_once(make: Callable[..., World]) -> None:
    world = make()
    key = world.files[0].key
    world.store.sends[key] = FAULTS["denied"][0]
    world.follow(route_of(world.files[0], version=1))
    world.store.sends.clear()
    world.follow(route_of(world.files[0], version=1))
    assert world.store.requests == [key]
    world.follow(route_of(world.files[0], version=2))
    assert world.store.requests == [key, key]
    assert world.loaded(route_of(world.files[0])) == [LIVE]


def test_clock_that_is_set_back_tries_again(make: Callable[..., World]) -> None:
    world = make()
    world.store.sends[world.files[0].key] = FAULTS["denied"][0]
    world.follow(route_of(world.files[0]))
    world.store.sends.clear()
    world.clock.time -= 3600
    world.follow(route_of(world.files[0]))
    assert world.loaded(route_of(world.files[0])) == [LIVE]


def test_heads_that_the_route_no_longer_names_are_dropped(make: Callable[..., World]) -> None:
    world = make()
    both = route_of(*world.files)
    world.follow(both)
    world.follow(route_of(world.files[1], version=2))
    assert world.loaded(both) == [CANDIDATE]
    world.follow(route_of(None, world.files[1], version=3))
    assert world.loaded(both) == [CANDIDATE]
    world.follow(Route(4))
    assert world.loaded(both) == []
    world.follow(both)
    assert world.loaded(both) == [LIVE, CANDIDATE]
    world.follow(route_of(*world.files, version=5, head_off=True))
    assert world.loaded(both) == []


def test_route_that_turns_heads_off_reads_none(make: Callable[..., World]) -> None:
    world = make()
    world.follow(route_of(*world.files, head_off=True))
    assert world.store.requests == []


def test_head_that_arrives_after_its_route_is_not_kept(make: Callable[..., World]) -> None:
    world = make()
    arrived = threading.Event()

    def send(connection: Any, content: bytes) -> None:
        assert arrived.wait(60)
        s3.whole(connection, content)

    world.store.sends[world.files[0].key] = send
    old = route_of(*world.files)
    world.heads.follow(old, world.clock())
    world.heads.follow(Route(2), world.clock())
    arrived.set()
    settle()
    assert world.loaded(old) == []
    assert world.store.requests == [world.files[0].key], "the next file is not read any more"


def test_file_is_read_once_however_many_queries_follow_the_route(make: Callable[..., World]) -> None:
    """Also while the route changes, with the same files."""
    world = make()
    world.store.sends = {file.key: s3.in_pieces for file in world.files}
    together = threading.Barrier(16)

    def follow(number: int) -> None:
        together.wait(60)
        for version in range(50):
            world.heads.follow(route_of(*world.files, version=version), world.clock())

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(follow, range(16)))
    world.follow(route_of(*world.files))
    assert world.loaded(route_of(*world.files)) == [LIVE, CANDIDATE]
    assert sorted(world.store.requests) == sorted(file.key for file in world.files)
    assert max(world.store.together.values()) == 1


def test_two_shares_of_one_file_have_one_head(make: Callable[..., World]) -> None:
    world = make()
    route = route_of(world.files[0], world.files[0])
    world.follow(route)
    assert world.loaded(route) == [LIVE, CANDIDATE]
    assert len(world.store.requests) == 1


def test_route_with_many_heads_loads_a_few_and_the_live_one(make: Callable[..., World]) -> None:
    world = make()
    contents = [head_file(0, threshold=number / 100) for number in range(40)]
    store, files = store_of(*contents)
    world.store.objects = store.objects
    shares = [
        Share(f"{place:012x}", "arn", 0.01, expires_at=None if place == 39 else 9_999_999_999, head=file)
        for place, file in enumerate(files)
    ]
    route = Route(1, tuple(shares))
    world.follow(route)
    loaded = world.loaded(route)
    assert len(loaded) == MOST_HEADS
    assert f"{39:012x}" in loaded


def test_load_that_never_ends_is_given_up_after_a_minute_of_the_wall_clock(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock may stand still while an environment is frozen, and with it each time limit."""
    world = make()
    over = threading.Event()

    def dribble(connection: Any, content: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content))
        sent = 0
        while not over.wait(0.1):
            connection.sendall(content[sent : sent + 1])
            sent += 1
        connection.sendall(content[sent:])

    now = time.monotonic()
    monkeypatch.setattr("router.connections.time.monotonic", lambda: now)
    key, route = world.files[0].key, route_of(world.files[0])
    world.store.sends[key] = dribble
    for _ in range(5):
        world.heads.follow(route, world.clock())
        world.clock.time += RETRY_SECONDS / 2
    started = [thread for thread in threading.enumerate() if thread.name == "heads"]
    assert len(started) == MOST_THREADS
    world.store.sends.clear()
    over.set()
    settle()
    world.follow(route)
    assert world.loaded(route) == [LIVE]
    assert not [thread for thread in threading.enumerate() if thread.name == "heads"]


def test_thread_that_does_not_start_costs_the_head(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    world = make()
    route = route_of(world.files[0])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        world.heads.follow(route, world.clock())
        world.heads.follow(route, world.clock())
    (warning,) = world.warnings()
    assert warning["problem"] == "no thread: can't start new thread"
    world.clock.time += RETRY_SECONDS
    world.follow(route)
    assert world.loaded(route) == [LIVE]
