"""Every call of Bedrock's control plane survives throttling, in every entry point that makes it.

The operations are not listed here: each scene is played once without a fault, and then again with those
that were seen then. Three strengths of throttling are tried:

- each operation as long as a client of `distilled_router.aws.clients` waits by itself: nobody notices;
- one operation, three calls in a row that even so were throttled to the end: whoever can ask again does, and
  it ends as if nothing had been; whoever can't refuses in a way that its caller may repeat;
- one operation for ever: the entry point's caller gets an answer within its time. What was paid is known to
  somebody who removes it, or goes on, once AWS answers again.

Nothing is ever made twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from distilled_router.aws import clients
from tests.unit.distilled_router.aws.throttling_scenes import SCENES
from tests.unit.entry_points import Theatre, asks_bedrock, entries

# So many times botocore's `standard` mode asks again by itself.
BY_BOTOCORE = 5
# So many calls in a row were throttled even so.
LOST = 3


@dataclass(frozen=True)
class Seen:
    """A scene's operations, what was there before and after, and what was made in all."""

    operations: Counter[str]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    created: Counter[str]
    entered: set[str]

    def each(self) -> Iterator[tuple[str, int]]:
        """Operations with a number of their calls to let pass. Where something is made, the look before it is
        another one than the look after it."""
        makes = any(operation.startswith("Create") for operation in self.operations)
        for operation, calls in self.operations.items():
            for skip in range(min(calls, 2 if makes else 1)):
                yield operation, skip


_KNOWN: dict[str, Seen] = {}


def undisturbed(theatre: Theatre, name: str) -> Seen:
    """What a scene does where nothing is in its way; played once."""
    if name not in _KNOWN:
        with theatre.play(SCENES[name].prepare) as play:
            began, before = len(theatre.server.calls()), play.picture()
            assert SCENES[name].ask(play)
            operations = Counter(call["operation"] for call in theatre.server.calls()[began:])
            _KNOWN[name] = Seen(operations, before, play.picture(), play.created(), play.entered)
    return _KNOWN[name]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that botocore would have slept between its tries."""
    slept: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=slept.append))
    return slept


def failures(trials: Iterable[tuple[str, int]], play: Callable[[str, int], None]) -> dict[str, str]:
    """What went wrong, by operation and number of its calls that were let pass."""
    found = {}
    for operation, skip in trials:
        try:
            play(operation, skip)
        except Exception as error:
            found[f"{operation} after {skip} calls"] = f"{type(error).__name__}: {error}"
    return found


def _throttled(theatre: Theatre, operation: str) -> bool:
    return any(call["outcome"] == "ThrottlingException" for call in theatre.server.calls(operation))


@pytest.mark.parametrize("name", SCENES)
def test_throttling_is_waited_out_by_every_call_itself(
    theatre: Theatre, pauses: list[float], name: str
) -> None:
    """Case B16."""
    scene, seen = SCENES[name], undisturbed(theatre, name)
    bedrock = boto3.client("bedrock", config=clients.CONFIG)
    theatre.server.attach(bedrock)
    with theatre.play(scene.prepare, bedrock) as play:
        for operation in seen.operations:
            theatre.server.fault("throttled", operation=operation, count=BY_BOTOCORE)

        assert scene.ask(play), "it was refused"

        assert (play.picture(), play.created()) == (seen.after, seen.created)
        assert len(pauses) == BY_BOTOCORE * len(seen.operations)
        # A part of 1, 2, 4, 8 and 16 seconds.
        assert all(pause <= 2 ** (number % BY_BOTOCORE) for number, pause in enumerate(pauses))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_calls_that_stay_throttled_are_made_again_later(theatre: Theatre, name: str) -> None:
    """Case B16."""
    scene, seen = SCENES[name], undisturbed(theatre, name)

    def trial(operation: str, skip: int) -> None:
        with theatre.play(scene.prepare) as play:
            theatre.server.fault("throttled", operation=operation, skip=skip, count=LOST)
            asked = next((tries for tries in range(1, LOST + 2) if scene.ask(play)), 0)
            assert _throttled(theatre, operation), "no call was throttled"
            assert 1 <= asked <= (1 if scene.patient else LOST + 1), "it was refused"
            assert (play.picture(), play.created()) == (seen.after, seen.created)

    assert failures(seen.each(), trial) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_throttling_that_does_not_end_leaves_nothing_unknown(theatre: Theatre, name: str) -> None:
    """Cases B12, B16."""
    scene, seen = SCENES[name], undisturbed(theatre, name)

    def trial(operation: str, skip: int) -> None:
        with theatre.play(scene.prepare) as play:
            theatre.server.fault("throttled", operation=operation, skip=skip, count=None)
            done = scene.ask(play)
            assert _throttled(theatre, operation), "no call was throttled"
            theatre.server.clear_faults()
            if not done and scene.undo:
                assert scene.undo(play), "it can't be taken back"
                assert play.picture() == seen.before
                assert play.created() <= seen.created
            else:
                assert done or scene.ask(play), "it can't be done later"
                assert (play.picture(), play.created()) == (seen.after, seen.created)

    assert failures(seen.each(), trial) == {}


def test_every_entry_point_that_calls_bedrock_has_a_scene(theatre: Theatre) -> None:
    played = set[str]().union(*(undisturbed(theatre, name).entered for name in SCENES))
    assert {name for name in entries() if asks_bedrock(name.partition(".")[0])} == played
