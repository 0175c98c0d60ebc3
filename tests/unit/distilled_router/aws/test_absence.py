"""One answer "not found" does not decide: Bedrock's reads lag behind writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from distilled_router.aws.absence import LONGEST_PAUSE_SECONDS, confirmed
from distilled_router.aws.custom_resource import Event, answer_poll, complete, pending
from tests.unit import framework


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    time: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += seconds


def read(clock: Clock, found_at: float) -> str | None:
    """Return a job that is found from a time on."""
    return "job" if clock.time >= found_at else None


@pytest.mark.parametrize(("found_at", "expected"), [(0, "job"), (59, "job"), (60, "job"), (61, None)])
def test_absence_counts_only_after_its_seconds(found_at: float, expected: str | None) -> None:
    clock = Clock()
    found = confirmed(lambda: read(clock, found_at), 60, sleep=clock.sleep, now=clock.now)
    assert found == expected
    assert clock.time <= 60


def test_found_resource_takes_one_read_and_no_pause() -> None:
    clock = Clock()
    assert confirmed(lambda: "job", 60, sleep=clock.sleep, now=clock.now) == "job"
    assert clock.pauses == []


def test_pauses_are_bounded() -> None:
    clock = Clock()
    assert confirmed(lambda: None, 60, sleep=clock.sleep, now=clock.now) is None
    assert max(clock.pauses) <= LONGEST_PAUSE_SECONDS
    assert len(clock.pauses) < 15


def answers(*values: dict[str, bool]) -> Iterator[dict[str, bool]]:
    """Return answers in turn, the last one for ever."""
    yield from values
    while True:
        yield values[-1]


def test_delete_is_complete_only_if_it_stays_so() -> None:
    """A list that lags shows nothing at first, and a resource that costs money later."""
    event = replace(Event.parse(framework.delete("job", {})), absence_seconds=0.7)
    lagging = answers(complete(), pending("deleting"))
    assert answer_poll(event, lambda _: next(lagging)) == pending("deleting")
    looks = list[int]()

    def nothing_left(_: Event) -> dict[str, bool]:
        looks.append(1)
        return complete()

    assert answer_poll(event, nothing_left) == complete()
    assert len(looks) >= 2


def test_create_is_complete_at_once() -> None:
    event = replace(Event.parse(framework.create({})), absence_seconds=60)
    assert answer_poll(event, lambda _: complete()) == complete()
