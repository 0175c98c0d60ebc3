"""Stacks that wait for a release, on the emulator's DynamoDB and a double of the handle's URL."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from release_wait.handler import MARGIN_SECONDS, handle
from shared.custom_resource import Event
from shared.releases import FAILED, LIVE, RETIRED, SUPERSEDED, Releases
from shared.waits import Waits, Window
from stacks.bedrock.release_wait import LONGEST_WINDOW_SECONDS, windows

DIGEST, OWNER, NOW = "aaaaaaaaaaaa", "video-router-test", 1_000_000


@dataclass
class Handles:
    """A double of the presigned URLs: keeps what was put, and can be out of reach."""

    reachable: bool = True
    signals: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def put(self, url: str, body: bytes) -> bool:
        if self.reachable:
            self.signals.append((url, json.loads(body)))
        return self.reachable


@pytest.fixture
def handles() -> Handles:
    return Handles()


@pytest.fixture
def waits(releases: Releases, handles: Handles) -> Waits:
    return Waits(releases._table, lambda: NOW, handles.put)


@pytest.fixture
def running(releases: Releases) -> Releases:
    releases.begin(DIGEST, attempt=1, execution="arn:execution", request_id="r")
    return releases


def event(kind: str = "Create", number: int = 1, last: str = "true", physical_id: str | None = None) -> Event:
    """An event as CloudFormation sends it: every property is a string."""
    return Event.parse(
        {
            "RequestType": kind,
            "PhysicalResourceId": physical_id,
            "ResourceProperties": {
                "Owner": OWNER,
                "Digest": DIGEST,
                "Window": str(number),
                "Last": last,
                "Seconds": "900",
                "Handle": f"https://handle/{number}",
            },
        }
    )


def test_a_running_release_leaves_the_window_open(running: Releases, waits: Waits, handles: Handles) -> None:
    result = handle(event(), waits, running, NOW)
    assert result["PhysicalResourceId"] == f"{OWNER}-{DIGEST}-wait-1"
    assert handles.signals == []
    assert list(waits.windows()) == [Window(DIGEST, 1, True, "https://handle/1", NOW + 900)]


@pytest.mark.parametrize("state", [LIVE, RETIRED])
def test_success_of_the_release_ends_the_window_with_success(
    state: str, running: Releases, waits: Waits, handles: Handles
) -> None:
    handle(event(), waits, running, NOW)
    running.update(DIGEST, state=state)
    assert waits.settle(running) == 1
    [(url, signal)] = handles.signals
    assert url == "https://handle/1"
    assert signal["Status"] == "SUCCESS"
    assert list(waits.windows()) == []


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED])
def test_failure_carries_the_reason_of_the_release(
    state: str, running: Releases, waits: Waits, handles: Handles
) -> None:
    handle(event(), waits, running, NOW)
    running.transition(DIGEST, state, "job video-router is Failed: no capacity")
    waits.settle(running)
    [(_, signal)] = handles.signals
    assert signal["Status"] == "FAILURE"  # a custom resource says FAILED, a wait condition says FAILURE
    assert "no capacity" in signal["Reason"]


def test_a_release_that_ended_before_the_window_was_registered_ends_it_at_once(
    running: Releases, waits: Waits, handles: Handles
) -> None:
    running.transition(DIGEST, LIVE, "serves all requests")
    handle(event(), waits, running, NOW)
    assert [signal["Status"] for _, signal in handles.signals] == ["SUCCESS"]


def test_a_signal_that_was_lost_is_sent_again(running: Releases, waits: Waits, handles: Handles) -> None:
    handle(event(), waits, running, NOW)
    running.transition(DIGEST, LIVE, "serves all requests")
    handles.reachable = False
    assert waits.settle(running) == 0
    handles.reachable = True
    assert waits.settle(running) == 1


def test_a_window_with_a_successor_is_ended_before_its_time_and_the_last_is_not(
    running: Releases, waits: Waits, handles: Handles
) -> None:
    handle(event(number=1, last="false"), waits, running, NOW)
    handle(event(number=2, last="true"), waits, running, NOW)
    assert waits.settle(running, margin_seconds=899) == 0
    assert waits.settle(running, margin_seconds=MARGIN_SECONDS) == 1
    [(url, signal)] = handles.signals
    assert (url, signal["Status"]) == ("https://handle/1", "SUCCESS")
    assert [window.number for window in waits.windows()] == [2]


def test_delete_forgets_the_window_and_only_it(running: Releases, waits: Waits, handles: Handles) -> None:
    handle(event(number=1), waits, running, NOW)
    handle(event(number=2), waits, running, NOW)
    handle(event("Delete", 1, physical_id="invented-by-cloudformation"), waits, running, NOW)
    assert len(list(waits.windows())) == 2
    handle(event("Delete", 1, physical_id=f"{OWNER}-{DIGEST}-wait-1"), waits, running, NOW)
    assert [window.number for window in waits.windows()] == [2]
    assert handles.signals == []


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0.25, [900]), (12, [43_200]), (13, [43_200, 3600]), (24, [43_200] * 2), (72, [43_200] * 6)],
)
def test_windows_are_as_few_as_there_can_be(hours: float, expected: list[int]) -> None:
    assert windows(hours) == expected
    assert sum(expected) == hours * 3600
    assert max(expected) <= LONGEST_WINDOW_SECONDS
