"""Switching heads off and on: what the route is then, and what is said of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from distilled_router.release.route import HeadFile, Share
from distilled_router.release.table import Releases
from operate import head_switch
from operate.deployed import Deployed
from operate.errors import OperateError

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
NOW = 1_800_000_000
LIVE = Share(A, "arn:a", 0.75, head=HeadFile("a/head.bin", "0" * 64))
CANDIDATE = Share(B, "arn:b", 0.25, NOW + 900, HeadFile("b/head.bin", "1" * 64))


@pytest.fixture
def at(releases: Releases) -> Deployed:
    releases.now = lambda: NOW - 3600
    return Deployed("dev", releases.owner, 1, None, None, releases.table, lambda: NOW)


def settle(releases: Releases, *shares: Share) -> None:
    releases.set_route(shares, after=releases.route(), reason="step")


def test_heads_are_off_at_once_and_every_share_stays(at: Deployed, releases: Releases) -> None:
    settle(releases, CANDIDATE, LIVE)
    text = "\n".join(head_switch.switch(at, off=True))
    route = releases.route()
    assert (route.head_off, route.shares, route.version) == (True, (CANDIDATE, LIVE), 2)
    assert route.reason == "heads switched off by hand"
    assert "Classification heads are switched off, by version 2 of the route." in text
    assert f"Releases {B} and {A} have one." in text
    assert "Routers follow within router.route_seconds." in text
    assert "`make head-on ENV=dev`" in text


def test_heads_are_on_again(at: Deployed, releases: Releases) -> None:
    settle(releases, LIVE)
    head_switch.switch(at, off=True)
    text = "\n".join(head_switch.switch(at, off=False))
    assert (releases.route().head_off, releases.route().shares) == (False, (LIVE,))
    assert f"are switched on, by version 3 of the route. Release {A} has one." in text


@pytest.mark.parametrize("off", [True, False])
def test_nothing_is_written_where_nothing_changes(at: Deployed, releases: Releases, off: bool) -> None:
    settle(releases, LIVE)
    if off:
        head_switch.switch(at, off=True)
    before = releases.table.scan(ConsistentRead=True)["Items"]
    first, last = head_switch.switch(at, off=off)
    assert releases.table.scan(ConsistentRead=True)["Items"] == before
    assert (
        first == f"Classification heads are already switched {'off' if off else 'on'}. Nothing was changed."
    )
    assert f"route version {2 if off else 1}, " in last
    assert ("heads switched off by hand" if off else "step") in last


def test_heads_can_be_off_before_the_first_release(at: Deployed, releases: Releases) -> None:
    text = "\n".join(head_switch.switch(at, off=True))
    assert "No release in the route has one." in text
    settle(releases, LIVE)
    assert releases.route().head_off


@pytest.mark.parametrize(
    "broken", [{"version": "none"}, {"shares": "oops"}, {"shares": [{"digest": B}]}, {"head_off": "oops"}]
)
@pytest.mark.parametrize("off", [True, False])
def test_switch_reaches_routers_through_a_broken_route(
    at: Deployed, releases: Releases, broken: dict[str, Any], off: bool
) -> None:
    """They keep the last good route, and would read no switch in a broken one."""
    settle(releases, LIVE)
    if not off:
        head_switch.switch(at, off=True)
    item = releases.table.get_item(Key={"id": releases.key("route")})["Item"]
    releases.table.put_item(Item={**item, **broken})
    head_switch.switch(at, off=off)
    route = releases.route()
    assert (route.head_off, route.problem, route.shares) == (off, None, (LIVE,))


def test_switch_that_outlived_its_route_is_switched_on(at: Deployed, releases: Releases) -> None:
    """The next rollout takes the switch from the history."""
    settle(releases, LIVE)
    head_switch.switch(at, off=True)
    releases.table.delete_item(Key={"id": releases.key("route")})
    assert "are switched on" in head_switch.switch(at, off=False)[0]
    settle(releases, LIVE)
    assert not releases.route().head_off


def test_switch_that_a_person_damaged_is_switched_on(at: Deployed, releases: Releases) -> None:
    settle(releases, LIVE)
    item = releases.table.get_item(Key={"id": releases.key("route")})["Item"]
    releases.table.put_item(Item={**item, "head_off": Decimal(7)})
    assert releases.route().head_off
    head_switch.switch(at, off=False)
    assert "head_off" not in releases.table.get_item(Key={"id": releases.key("route")})["Item"]


def interrupted(monkeypatch: pytest.MonkeyPatch, releases: Releases, times: int) -> None:
    """Let a rollout change the route before the switch is written, a number of times."""
    write, left = Releases.switch_heads, [CANDIDATE] * times

    def late(self: Releases, **named: Any) -> Any:
        if left:
            settle(releases, left.pop(), LIVE)
        return write(self, **named)

    monkeypatch.setattr(Releases, "switch_heads", late)


def test_route_that_changed_meanwhile_is_read_again(
    at: Deployed, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(releases, LIVE)
    interrupted(monkeypatch, releases, head_switch.TRIES - 1)
    head_switch.switch(at, off=True)
    assert (releases.route().head_off, releases.route().shares) == (True, (CANDIDATE, LIVE))


def test_route_that_keeps_changing_is_left_to_the_others(
    at: Deployed, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(releases, LIVE)
    interrupted(monkeypatch, releases, head_switch.TRIES)
    with pytest.raises(OperateError, match="The route keeps changing") as caught:
        head_switch.switch(at, off=True)
    assert "make releases ENV=dev" in caught.value.advice
    assert not releases.route().head_off
