"""A release that an operator rolled back starts again only for a raised `release.attempt`.

Its settings may still be declared when something else changes, and CloudFormation may roll a stack back to
them.
"""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.aws.custom_resource import Event
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, WAITING
from distilled_router.release.wait_conditions import WaitConditions, Window
from operate.rollback import roll_back
from release.handler import check
from tests.unit.operate.test_rollback import at, replaced, rolling_out
from tests.unit.release.test_release_resource import Resource, resource
from tests.unit.release_world import OWNER, A, B, C, World

__all__ = ["resource"]


def deploy(resource: Resource, digest: str, attempt: int = 1, **changes: Any) -> Event:
    """Run a whole Update, with or without `release.attempt`; return its event."""
    attempts = {"Attempt": str(attempt)} if attempt > 1 else {}
    event = resource.event("Update", digest, **attempts, **changes)
    assert check(Event.parse(resource.send(event)), resource.services()) == {"IsComplete": True}
    return event


def retired(world: World, _: Resource) -> tuple[str, str]:
    """Roll the live release back; return its digest, and the one that is live now."""
    replaced(world)
    roll_back(at(world))
    assert world.release(B).state == RETIRED
    return B, A


def superseded(world: World, _: Resource) -> tuple[str, str]:
    """End a rollout."""
    replaced(world)
    rolling_out(world)
    roll_back(at(world))
    assert world.release(C).state == SUPERSEDED
    return C, B


@pytest.fixture(params=[retired, superseded])
def digests(request: pytest.FixtureRequest, world: World, resource: Resource) -> tuple[str, str]:
    """Return the digest that an operator rolled back, and the live one."""
    resource.requests = 10  # the releases began by earlier requests
    bad, live = request.param(world, resource)
    return bad, live


@pytest.mark.parametrize(
    "changes", [{"Gate": "another"}, {"HoldoutKey": "another"}, {"Endpoint": f"{OWNER}-1mu"}]
)
def test_another_change_of_the_settings_does_not_start_it(
    world: World, resource: Resource, digests: tuple[str, str], changes: dict[str, Any]
) -> None:
    bad, live = digests
    before, route, executions = world.release(bad), world.releases.route(), world.executions()
    deploy(resource, bad, **changes)
    assert (world.release(bad), world.releases.route(), world.executions()) == (before, route, executions)
    assert world.releases.declared() == bad
    assert world.release(live).state == LIVE


def test_rollback_by_cloudformation_does_not_start_it_and_ends_its_successor(
    world: World, resource: Resource, digests: tuple[str, str]
) -> None:
    bad, live = digests
    new = "dddddddddddd"
    before, route = world.release(bad), world.releases.route()
    deploy(resource, new)
    assert world.executions()[f"{new}-1"] == "RUNNING"
    deploy(resource, bad)
    assert (world.release(bad), world.releases.route()) == (before, route)
    assert world.executions()[f"{new}-1"] == "ABORTED"
    assert world.release(live).state == LIVE


def test_raised_attempt_starts_it(world: World, resource: Resource, digests: tuple[str, str]) -> None:
    bad, _ = digests
    assert "raise release.attempt above 1 to start it again" in world.release(bad).message
    deploy(resource, bad, attempt=2)
    found = world.release(bad)
    assert (found.state, found.attempt, found.rolled_back) == (WAITING, 2, 0)
    assert world.executions()[f"{bad}-2"] == "RUNNING"


def test_same_attempt_starts_it_once(world: World, resource: Resource) -> None:
    """Also if it was raised once more, while nothing had to start."""
    bad, _ = superseded(world, resource)
    deploy(resource, bad, attempt=2)
    deploy(resource, bad, attempt=3)
    roll_back(at(world))
    assert "raise release.attempt above 3" in world.release(bad).message
    for attempt in (3, 2, 1):
        deploy(resource, bad, attempt=attempt)
        assert world.release(bad).state == SUPERSEDED
    deploy(resource, bad, attempt=4)
    assert world.release(bad).state == WAITING


def test_attempt_that_was_raised_while_it_was_live_does_not_start_it(
    world: World, resource: Resource
) -> None:
    replaced(world)
    deploy(resource, B, attempt=2)
    roll_back(at(world))
    deploy(resource, B, attempt=2, Gate="another")
    assert world.release(B).state == RETIRED
    deploy(resource, B, attempt=3)
    assert world.release(B).state == WAITING


def test_attempt_that_was_lowered_and_started_it_counts_no_less(world: World, resource: Resource) -> None:
    """A refused release starts again by another gate, also without the `release.attempt` of before."""
    deploy(resource, A, attempt=3)
    world.stepfunctions.stop_execution(executionArn=world.execution(A))
    world.releases.transition(A, FAILED, "refused by the gate")
    deploy(resource, A, Gate="another")
    found = world.release(A)
    assert (found.state, found.attempt, found.declared_attempt) == (WAITING, 2, 3)


def test_event_that_is_delivered_again_does_not_start_it(world: World, resource: Resource) -> None:
    replaced(world)
    event = deploy(resource, C)
    roll_back(at(world))
    before, executions = world.release(C), world.executions()
    resource.send(event)
    assert (world.release(C), world.executions()) == (before, executions)


def test_stack_that_waits_for_it_fails_and_says_why(world: World, digests: tuple[str, str]) -> None:
    bad, _ = digests
    signals: list[str] = []

    def put(_: str, body: bytes) -> bool:
        signals.append(body.decode())
        return True

    waits = WaitConditions(world.releases.table, OWNER, put=put)
    waits.register(Window(bad, 1, True, "https://localhost/handle", int(world.now) + 3_600))
    assert waits.signal(world.releases) == 1
    (signal,) = signals
    assert '"Status": "FAILURE"' in signal
    assert "raise release.attempt above 1" in signal
