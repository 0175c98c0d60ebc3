"""Another hold-out set for the same model: a new evaluation, and nothing else.

`docs/decisions/0040-a-holdout-is-no-part-of-the-model.md` has the table of all cases.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from distilled_router.aws.custom_resource import Event
from distilled_router.release.route import Share
from distilled_router.release.table import (
    DEPLOYING,
    EVALUATING,
    FAILED,
    LIVE,
    RETIRED,
    ROLLING_OUT,
    SUPERSEDED,
    WAITING,
)
from distilled_router.release.wait_conditions import WaitConditions
from release.handler import check
from rollout.roll_out import advance
from sweeper.fail import end
from tests.unit.release.test_release_resource import Resource, resource
from tests.unit.release_world import OWNER, PASSING, A, B, Proxy, World, live_share

__all__ = ["resource"]

OLD, NEW, NEWER = (f"datasets/{digit * 16}/holdout.jsonl" for digit in "123")
BOUGHT = f"{OWNER}-1mu"


def deploy(resource: Resource, digest: str, holdout: str, **changes: Any) -> Event:
    """Run a whole Update; return its event."""
    event = resource.event("Update", digest, HoldoutKey=holdout, **changes)
    assert check(Event.parse(resource.send(event)), resource.services()) == {"IsComplete": True}
    return event


def live(world: World, resource: Resource) -> None:
    """Make A live, after it has passed on OLD."""
    world.change_machine(PASSING)
    deploy(resource, A, OLD)
    world.releases.update(A, endpoint="arn:endpoint", passed_on=OLD)
    world.releases.transition(A, LIVE, "serves all requests")
    world.settle(live_share(A))
    world.change_machine({"Type": "Wait", "Seconds": 100_000, "End": True})


def later(world: World) -> dict[str, str]:
    """Return the executions after the one that made A live."""
    return {name: status for name, status in world.executions().items() if name != f"{A}-1"}


def told(world: World) -> tuple[str, str, str, bool]:
    """Return state, hold-out set, set on which A passed, and whether it is evaluated again."""
    found = world.release(A)
    return found.state, found.holdout_key, found.passed_on, found.is_reevaluated


def test_live_release_stays_live_while_it_is_evaluated_on_another_set(
    world: World, resource: Resource
) -> None:
    live(world, resource)
    route, seal = world.releases.route(), world.release(A).seal
    deploy(resource, A, NEW)
    assert world.executions()[f"{A}-2"] == "RUNNING"
    assert told(world) == (LIVE, NEW, OLD, True)
    assert world.releases.route() == route
    found = world.release(A)
    assert (found.attempt, found.endpoint, found.holdout_sha256) == (2, "arn:endpoint", "")
    assert found.seal not in {seal, ""}


@pytest.mark.parametrize("changes", [{}, {"Gate": "another"}, {"Attempt": "2"}])
def test_live_release_that_has_passed_is_left_alone(
    world: World, resource: Resource, changes: dict[str, Any]
) -> None:
    """Deployed twice, with another gate, or with a higher `release.attempt`."""
    live(world, resource)
    before = world.release(A)
    deploy(resource, A, OLD, **changes)
    assert world.release(A) == replace(before, declared_attempt=int(changes.get("Attempt", 1)))
    assert list(world.executions()) == [f"{A}-1"]


@pytest.mark.parametrize("changes", [{}, {"Attempt": "2"}])
def test_running_evaluation_is_not_started_twice(
    world: World, resource: Resource, changes: dict[str, Any]
) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    before = world.release(A)
    deploy(resource, A, NEW, **changes)
    assert world.release(A) == replace(before, declared_attempt=int(changes.get("Attempt", 1)))
    assert f"{A}-3" not in world.executions()


@pytest.mark.parametrize("is_over", [False, True])
def test_retried_event_changes_nothing(world: World, resource: Resource, is_over: bool) -> None:
    live(world, resource)
    if is_over:
        world.change_machine(PASSING)
    event = deploy(resource, A, NEW)
    if is_over:
        world.releases.end_again(A, "not passed")
    before = world.release(A)
    resource.send(event)
    assert world.release(A) == before
    assert f"{A}-3" not in world.executions()


def test_event_whose_start_was_lost_starts_its_own_evaluation(world: World, resource: Resource) -> None:
    live(world, resource)
    event = resource.event("Update", A, HoldoutKey=NEW)
    crash = Proxy(world.stepfunctions, start_execution=Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        resource.send(event, stepfunctions=crash)
    resource.send(event)
    assert world.executions()[f"{A}-2"] == "RUNNING"
    assert told(world) == (LIVE, NEW, OLD, True)


@pytest.mark.parametrize("is_over", [False, True])
def test_set_that_it_has_passed_on_comes_back_and_nothing_is_asked(
    world: World, resource: Resource, is_over: bool
) -> None:
    """By a change of the settings, or rolled back by CloudFormation, perhaps because it did not pass."""
    live(world, resource)
    world.releases.update(A, passed=json.dumps({"scores": "{}", "report": "s3://old"}))
    deploy(resource, A, NEW)
    if is_over:
        world.releases.update(A, report="s3://new", holdout_sha256="1" * 64)
        world.releases.end_again(A, "not passed")
    deploy(resource, A, OLD)
    assert later(world) == {f"{A}-2": "ABORTED"}
    assert told(world) == (LIVE, OLD, OLD, False)
    found = world.release(A)
    assert (found.message, found.holdout_sha256) == ("serves all requests", "")
    item = world.releases.table.get_item(Key={"id": world.releases.key(f"release@{A}")})["Item"]
    assert item["report"] == "s3://old"
    assert not world.releases.evaluating(A, "scoring")


def test_passing_on_another_set_is_told(world: World, resource: Resource) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    world.releases.update(A, passed_on=NEW)  # as ScoreAndGate does
    for expected in (f"passed on another hold-out set, {NEW}", "serves all requests"):
        result = advance(A, world.releases, Mock())  # the second time: its response was lost
        assert result["outcome"] == "done"
        assert expected in result["message"]
    assert told(world) == (LIVE, NEW, NEW, False)
    assert NEW in world.release(A).message
    assert world.releases.route().shares == (live_share(A),)


@pytest.mark.parametrize("bought", ["", BOUGHT])
def test_live_release_that_fails_on_another_set_stays_live(
    world: World, resource: Resource, bought: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also on provisioned throughput, which stays its own."""
    live(world, resource)
    if bought:
        arn = "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/1"
        world.settle(live_share(A, arn))
        world.releases.update(A, throughput=bought, endpoint=arn)
    deploy(resource, A, NEW, Endpoint=bought or "on_demand")
    before = world.releases.route()
    waits = WaitConditions(world.releases.table, OWNER)
    end(A, world.execution(A, 2), "refused by the gate: dominant 0.1", world.sweeper(), waits)
    assert told(world) == (LIVE, NEW, OLD, False)
    assert "not passed on another hold-out set: refused by the gate" in world.release(A).message
    assert world.release(A).throughput == bought
    assert world.releases.route() == before
    assert '"FailedReleases":[1' in capsys.readouterr().out.replace(" ", "")


def test_live_release_that_has_not_passed_is_evaluated_again_on_request(
    world: World, resource: Resource
) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    world.stepfunctions.stop_execution(executionArn=world.execution(A, 2))
    world.releases.end_again(A, "not passed")
    deploy(resource, A, NEW, Attempt="2")
    assert world.executions()[f"{A}-3"] == "RUNNING"
    assert told(world) == (LIVE, NEW, OLD, True)


def test_stopped_evaluation_is_noticed_and_the_release_stays_live(world: World, resource: Resource) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    world.stepfunctions.stop_execution(executionArn=world.execution(A, 2))
    world.sweeper().sweep()
    assert told(world) == (LIVE, NEW, OLD, False)
    assert "ABORTED" in world.release(A).message


def test_running_evaluation_is_left_by_the_sweeper(world: World, resource: Resource) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    world.advance(3600)
    world.sweeper().sweep()
    assert told(world) == (LIVE, NEW, OLD, True)


def test_another_model_ends_the_evaluation_of_the_live_release(world: World, resource: Resource) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    deploy(resource, B, NEW)
    assert later(world) == {f"{A}-2": "ABORTED", f"{B}-1": "RUNNING"}
    assert told(world) == (LIVE, NEW, OLD, False)
    assert world.releases.route().shares == (live_share(A),)


@pytest.mark.parametrize("state", [WAITING, DEPLOYING, EVALUATING, ROLLING_OUT])
def test_release_in_progress_begins_its_next_attempt_on_another_set(
    world: World, resource: Resource, state: str
) -> None:
    deploy(resource, A, OLD)
    if state != WAITING:
        world.releases.transition(A, state, "goes on")
    if state == ROLLING_OUT:
        world.settle(Share(A, "arn:a", 0.25, expires_at=int(world.now) + 600), Share(B, "arn:b", 0.75))
    deploy(resource, A, NEW)
    assert world.executions() == {f"{A}-1": "ABORTED", f"{A}-2": "RUNNING"}
    assert told(world) == (WAITING, NEW, "", False)
    if state == ROLLING_OUT:
        assert world.releases.route().shares == (live_share(B, "arn:b"),)


@pytest.mark.parametrize("state", [FAILED, RETIRED, SUPERSEDED])
def test_ended_release_begins_a_new_attempt_on_another_set(
    world: World, resource: Resource, state: str
) -> None:
    world.change_machine(PASSING)
    deploy(resource, A, OLD)
    world.releases.transition(A, state, "ended")
    deploy(resource, A, NEW)
    assert sorted(world.executions()) == [f"{A}-1", f"{A}-2"]
    assert told(world) == (WAITING, NEW, "", False)


@pytest.mark.parametrize(
    ("state", "passed"), [(LIVE, OLD), (ROLLING_OUT, OLD), (EVALUATING, ""), (WAITING, "")]
)
def test_upgrade_notes_the_declared_set_and_starts_nothing(
    world: World, resource: Resource, state: str, passed: str
) -> None:
    """The attempt began before its hold-out set was noted."""
    world.begin(A, run=True, state=state)
    world.settle(live_share(A))
    deploy(resource, A, OLD)
    assert told(world) == (state, OLD, passed, False)
    assert list(world.executions()) == [f"{A}-1"]
    if state == LIVE:
        deploy(resource, A, NEWER)
        assert told(world) == (LIVE, NEWER, OLD, True)


def test_evaluation_of_a_release_that_was_rolled_back_meanwhile_changes_nothing(
    world: World, resource: Resource
) -> None:
    live(world, resource)
    deploy(resource, A, NEW)
    world.begin(B, state=RETIRED)
    world.releases.roll_back(
        B, "arn:b", after=world.releases.route(), reason="by hand", retiring=[world.release(A)]
    )
    assert not world.releases.evaluating(A, "scoring")
    waits = WaitConditions(world.releases.table, OWNER)
    end(A, world.execution(A, 2), "refused", world.sweeper(), waits)
    assert world.release(A).state == RETIRED
    assert world.releases.route().shares == (live_share(B, "arn:b"),)


def test_throughput_of_a_live_release_that_moves_is_a_whole_attempt(world: World, resource: Resource) -> None:
    """Another endpoint and another hold-out set at once."""
    live(world, resource)
    deploy(resource, A, NEW, Endpoint=BOUGHT)
    assert told(world) == (WAITING, NEW, "", False)
    assert world.executions()[f"{A}-2"] == "RUNNING"
