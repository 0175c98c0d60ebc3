"""Stacks that wait for a release, on the emulator's DynamoDB and a double of the handle's URL."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

import release_wait.handler
from cdk_distilled_router.release.wait import LONGEST_WINDOW_SECONDS, pace, windows
from distilled_router.aws.custom_resource import REASON_BYTES, Event
from distilled_router.aws.errors import ResourceError
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, WAITING, Releases
from distilled_router.release.wait_conditions import WaitConditions, Window
from release_wait.handler import handle

DIGEST, OWNER, NOW = "aaaaaaaaaaaa", "video-router-test", 1_000_000
SECONDS = 900


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
def waits(releases: Releases, handles: Handles) -> WaitConditions:
    return WaitConditions(releases.table, releases.owner, lambda: NOW, handles.put)


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
                "Seconds": str(SECONDS),
                "Handle": f"https://handle/{number}",
            },
        }
    )


def test_a_running_release_leaves_the_window_open(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    result = handle(event(), waits, running, NOW)
    assert result["PhysicalResourceId"] == f"{OWNER}-{DIGEST}-wait-1"
    assert handles.signals == []
    assert list(waits.windows()) == [Window(DIGEST, 1, True, "https://handle/1", NOW + 900)]


@pytest.mark.parametrize("state", [LIVE, RETIRED])
def test_success_of_the_release_ends_the_window_with_success(
    state: str, running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    handle(event(), waits, running, NOW)
    running.update(DIGEST, state=state)
    assert waits.signal(running) == 1
    [(url, signal)] = handles.signals
    assert url == "https://handle/1"
    assert signal["Status"] == "SUCCESS"
    assert list(waits.windows()) == []


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED])
def test_failure_carries_the_reason_of_the_release(
    state: str, running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    handle(event(), waits, running, NOW)
    running.transition(DIGEST, state, "job video-router is Failed: no capacity")
    waits.signal(running)
    [(_, signal)] = handles.signals
    assert signal["Status"] == "FAILURE"  # a custom resource says FAILED, a wait condition says FAILURE
    assert "no capacity" in signal["Reason"]


def test_cloudformation_gets_the_findings_of_the_gate_in_one_line(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    handle(event(), waits, running, NOW)
    message = (
        "refused by the gate: 1 of 9 checks failed. Next: read.\n- Valid output for 90.0%.\nWarning: odd"
    )
    running.transition(DIGEST, FAILED, message)
    waits.signal(running)
    [(_, signal)] = handles.signals
    told = "refused by the gate: 1 of 9 checks failed. Next: read. Valid output for 90.0%. Warning: odd"
    assert signal["Reason"] == f"release {DIGEST} failed: {told}"
    assert "\n" not in signal["Data"]


def test_a_stack_waits_for_the_evaluation_on_another_holdout_set(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    """The window is registered under a name of its own: the Delete of the one before leaves it."""
    running.update(DIGEST, state=LIVE, holdout_key="old", passed_on="old")
    assert running.begin_again(
        DIGEST, attempt=2, execution="arn:execution:2", request_id="s", holdout_key="new"
    )
    before = event()
    asked = Event.parse({**before.raw, "ResourceProperties": {**before.properties, "Holdout": "0a1b2c3d"}})
    result = handle(asked, waits, running, NOW)
    assert result["PhysicalResourceId"] == f"{OWNER}-{DIGEST}-0a1b2c3d-wait-1"
    handle(event("Delete", physical_id=f"{OWNER}-{DIGEST}-wait-1"), waits, running, NOW)
    assert len(list(waits.windows())) == 1
    assert handles.signals == []
    running.end_again(DIGEST, "not passed: refused by the gate")
    assert waits.signal(running) == 1
    [(_, signal)] = handles.signals
    assert signal["Status"] == "FAILURE"
    assert "refused by the gate" in signal["Reason"]


def test_a_release_that_ended_before_the_window_was_registered_ends_it_at_once(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    running.transition(DIGEST, LIVE, "serves all requests")
    handle(event(), waits, running, NOW)
    assert [signal["Status"] for _, signal in handles.signals] == ["SUCCESS"]


def test_a_signal_that_was_lost_is_sent_again(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    handle(event(), waits, running, NOW)
    running.transition(DIGEST, LIVE, "serves all requests")
    handles.reachable = False
    assert waits.signal(running) == 0
    handles.reachable = True
    assert waits.signal(running) == 1


def test_a_release_is_handed_from_window_to_window_until_it_ends(running: Releases, handles: Handles) -> None:
    """CloudFormation makes each window after the one before has ended."""
    margin = 300
    for number in (1, 2):
        begins = NOW + number * SECONDS
        handle(event(number=number, last="false"), at(running, handles, begins), running, begins)
        early = at(running, handles, begins + SECONDS - margin)
        assert early.signal(running, margin) == 0
        assert at(running, handles, begins + SECONDS - margin + 1).signal(running, margin) == 1
        url, signal = handles.signals[-1]
        assert (url, signal["Status"]) == (f"https://handle/{number}", "SUCCESS")
        assert "the next window waits for it" in signal["Reason"]
    begins = NOW + 3 * SECONDS
    last = at(running, handles, begins)
    handle(event(number=3, last="true"), last, running, begins)
    running.transition(DIGEST, FAILED, "job video-router is Failed: no capacity")
    assert last.signal(running, margin) == 1
    assert [signal["Status"] for _, signal in handles.signals] == ["SUCCESS", "SUCCESS", "FAILURE"]
    assert list(last.windows()) == []


def test_the_last_window_runs_out_in_cloudformation_and_fails_the_stack(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
    """Nobody signals it, and whoever waited longest is told by its rollback, which forgets the window. The
    release goes on."""
    handle(event(number=2, last="true"), waits, running, NOW)
    late = at(running, handles, NOW + 2 * SECONDS)
    assert late.signal(running, margin_seconds=300) == 0
    assert handles.signals == []
    handle(event("Delete", 2, physical_id=f"{OWNER}-{DIGEST}-wait-2"), late, running, NOW)
    assert list(late.windows()) == []
    release = running.get(DIGEST)
    assert release is not None
    assert release.state == WAITING


def test_tick_ends_windows_by_the_margin_that_the_stack_gives_it(
    running: Releases, waits: WaitConditions, handles: Handles, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle(event(number=1, last="false"), waits, running, NOW)
    monkeypatch.setattr(release_wait.handler, "table", lambda _: running.table)
    monkeypatch.setattr(release_wait.handler, "WaitConditions", lambda *_: waits)
    monkeypatch.setenv("TABLE_NAME", "releases")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "owner")
    for margin, ended in (("899", 0), ("901", 1)):
        monkeypatch.setenv("MARGIN_SECONDS", margin)
        assert release_wait.handler.tick({}, None) == {"ended": ended}


def at(releases: Releases, handles: Handles, now: float) -> WaitConditions:
    """The registered windows, at another time."""
    return WaitConditions(releases.table, releases.owner, lambda: now, handles.put)


def test_delete_forgets_the_window_and_only_it(
    running: Releases, waits: WaitConditions, handles: Handles
) -> None:
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


def test_windows_may_be_shorter_but_not_longer_than_cloudformation_waits() -> None:
    assert windows(0.01, 20) == [20, 16]
    for longest in (0, LONGEST_WINDOW_SECONDS + 1):
        with pytest.raises(ValueError, match=f"longest_window_seconds = {longest}"):
            windows(1, longest)


@pytest.mark.parametrize("longest", [10, 20, 300, 3600, LONGEST_WINDOW_SECONDS])
def test_a_window_is_ended_before_its_time_and_not_before_its_half(longest: int) -> None:
    minutes, margin = pace(longest)
    assert 1 <= minutes <= 10
    assert 0 < margin <= longest / 2
    if longest >= 600:
        assert margin > 2 * 60 * minutes, "one look may be missed"


def test_windows_of_twelve_hours_are_looked_at_every_ten_minutes() -> None:
    assert pace(LONGEST_WINDOW_SECONDS) == (10, 1500)


def test_a_long_error_of_the_table_fits_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case C9."""
    table = Mock()
    table.put_item.side_effect = ClientError(
        {"Error": {"Code": "ValidationException", "Message": "x" * 9000}}, "PutItem"
    )
    monkeypatch.setenv("TABLE_NAME", "releases")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "owner")
    monkeypatch.setenv("MARGIN_SECONDS", "900")
    monkeypatch.setattr(release_wait.handler, "table", lambda _: table)
    raised = {"RequestType": "Create", "ResourceProperties": event().properties}
    with pytest.raises(ResourceError) as caught:
        release_wait.handler.on_event(raised, None)
    assert len(str(caught.value)) <= REASON_BYTES
