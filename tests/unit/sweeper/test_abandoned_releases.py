"""Releases whose execution was stopped or disappeared, and what they leave in the route."""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.release.route import Share
from distilled_router.release.sweep import START_GRACE_SECONDS
from distilled_router.release.table import (
    FAILED,
    RETIRED,
    ROLLING_OUT,
    SUPERSEDED,
    WAITING,
)
from tests.unit.release_world import JOB, PASSING, A, B, Proxy, World, live_share, named
from tests.unit.sweeper.scenes import (
    Capture,
    failures,
    made,
    model_of,
)


def test_stopped_release_fails_and_its_share_is_withdrawn(world: World, capsys: Capture) -> None:
    world.settle(live_share(A, "arn:a"))
    arn = made(world, B, ROLLING_OUT)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{B}-1")
    world.settle(Share(B, arn, 0.5, expires_at=int(world.now) + 900), Share(A, "arn:a", 0.5))
    world.stepfunctions.stop_execution(executionArn=world.execution(B))
    world.claim(model_of(world, B), JOB)
    world.sweeper().sweep()
    assert world.release(B).state == FAILED
    assert world.release(B).message == f"its execution is ABORTED: {world.execution(B)}"
    assert world.releases.route().shares == (live_share(A, "arn:a"),)
    assert (world.deployments(), world.models()) == (set(), named(B))
    assert failures(capsys) == 1
    world.sweeper().sweep()
    assert failures(capsys) == 0


@pytest.mark.parametrize("status", ["TIMED_OUT", "FAILED", "SUCCEEDED"])
def test_release_whose_execution_ended_without_it_is_failed(world: World, status: str) -> None:
    world.begin(A)
    ended = Proxy(world.stepfunctions, describe_execution=lambda **_: {"status": status})
    world.sweeper(stepfunctions=ended).sweep()
    assert (world.release(A).state, status in world.release(A).message) == (FAILED, True)


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_release_whose_execution_runs_is_left_alone(world: World, status: str) -> None:
    world.begin(A)
    world.advance(10 * START_GRACE_SECONDS)
    running = Proxy(world.stepfunctions, describe_execution=lambda **_: {"status": status})
    world.sweeper(stepfunctions=running).sweep()
    assert world.release(A).state == WAITING


def test_execution_that_was_never_started_fails_its_release_after_a_while(world: World) -> None:
    world.begin(A)
    world.advance(START_GRACE_SECONDS - 1)
    world.sweeper().sweep()
    assert world.release(A).state == WAITING
    world.advance(1)
    world.sweeper().sweep()
    assert world.release(A).state == FAILED
    assert "is gone" in world.release(A).message


def test_attempt_that_begins_while_its_predecessor_ends_is_left_alone(world: World) -> None:
    world.change_machine(PASSING)
    world.begin(A, run=True)

    def describe(**parameters: Any) -> Any:
        world.change_machine({"Type": "Wait", "Seconds": 1000, "End": True})
        world.begin(A, 2, run=True)
        return {"status": "ABORTED", **parameters}

    world.sweeper(stepfunctions=Proxy(world.stepfunctions, describe_execution=describe)).sweep()
    assert (world.release(A).attempt, world.release(A).state) == (2, WAITING)


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED, RETIRED, None])
def test_partial_share_of_an_ended_release_is_withdrawn(world: World, state: str | None) -> None:
    if state:
        world.begin(B)
        world.releases.transition(B, state, "ended")
    world.settle(Share(B, "arn:b", 0.25, expires_at=1), Share(A, "arn:a", 0.75))
    world.sweeper().sweep()
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


def test_partial_share_in_use_despite_a_malformed_route_is_withdrawn(world: World) -> None:
    world.begin(B)
    world.settle(Share(B, "arn:b", 0.25, expires_at=int(world.now) + 900), Share(A, "arn:a", 0.75))
    world.releases.transition(B, FAILED, "ended")
    world.releases.table.put_item(
        Item={"id": world.releases.key("route"), "version": "none", "shares": "all of them"}
    )
    world.sweeper().sweep()
    assert world.releases.route().problem is None
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


def test_partial_share_of_a_retired_release_is_a_rollbacks_and_stays_until_it_expires(world: World) -> None:
    world.begin(B, state=RETIRED)
    shares = (Share(B, "arn:b", 0.25, expires_at=int(world.now) + 900), Share(A, "arn:a", 0.75))
    world.settle(*shares)
    world.sweeper().sweep()
    assert world.releases.route().shares == shares
    world.advance(901)
    world.sweeper().sweep()
    assert world.releases.route().shares == (live_share(A, "arn:a"),)
