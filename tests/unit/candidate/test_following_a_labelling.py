"""A release whose job a labelling creates: it waits for the labelling, and restarts a stopped one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from distilled_router.aws import executions
from distilled_router.aws.state_machine import StageResult
from distilled_router.release.table import FAILED, Release
from tests.unit.candidate.polls import poll
from tests.unit.release_world import LASTING, OWNER, PASSING, A, World
from tests.unit.resource_scenes import Meddled, refusal, times

INPUT = '{"plan": 1}'


def machine(world: World, state: Mapping[str, object] = LASTING) -> str:
    """Return the ARN of a state machine whose executions run for ever or end at once."""
    made = world.stepfunctions.create_state_machine(
        name=f"{OWNER}-labelling-{world.number}",
        definition=json.dumps({"StartAt": "Only", "States": {"Only": dict(state)}}),
        roleArn="arn:aws:iam::000000000000:role/machine",
    )
    return str(made["stateMachineArn"])


def following(world: World, labelling: str) -> StageResult:
    return poll(world, labelling_machine_arn=labelling)


def begin(world: World, attempt: int = 1) -> None:
    world.releases.begin(A, attempt=attempt, execution="e", request_id=f"r{attempt}", source=f"{OWNER}-{A}")


def labellings(world: World, arn: str) -> list[tuple[str, str]]:
    found = executions.of_work(world.stepfunctions, arn, A)
    return [(item["name"], item["status"]) for item in found]


def release(world: World) -> Release:
    found = world.releases.get(A)
    assert found is not None
    return found


def test_labelling_that_runs_is_awaited(world: World) -> None:
    arn = machine(world)
    begin(world)
    executions.ensure(world.stepfunctions, arn, A, INPUT)
    result = following(world, arn)
    assert result["outcome"] == "waiting"
    assert release(world).message == f"the queries are being labelled: {A}-1"
    assert labellings(world, arn) == [(f"{A}-1", "RUNNING")]


def test_job_that_the_labelling_created_is_watched_as_any_other(world: World) -> None:
    arn = machine(world)
    begin(world)
    executions.ensure(world.stepfunctions, arn, A, INPUT)
    world.start_job(A)
    result = following(world, arn)
    assert result["outcome"] == "waiting"
    assert "job InProgress" in result["message"]


def stop_by_hand(world: World, execution: str) -> None:
    world.stepfunctions.stop_execution(executionArn=execution)


def test_labelling_that_its_resource_has_stopped_is_not_started_again(world: World) -> None:
    """The stack now declares another model, and would not know the job that the labelling creates."""
    arn = machine(world)
    begin(world)
    execution = executions.ensure(world.stepfunctions, arn, A, INPUT)
    executions.stop(world.stepfunctions, execution, "superseded by another model")
    result = following(world, arn)
    assert result["outcome"] == "failed"
    assert "superseded by another model" in result["message"]
    assert labellings(world, arn) == [(f"{A}-1", "ABORTED")]


def test_labelling_that_was_stopped_continues_in_the_next_attempt(world: World) -> None:
    arn = machine(world)
    begin(world)
    execution = executions.ensure(world.stepfunctions, arn, A, INPUT)
    following(world, arn)
    stop_by_hand(world, execution)
    result = following(world, arn)
    assert result["outcome"] == "failed"
    assert f"the labelling {A}-1 is ABORTED" in result["message"]
    assert "release.attempt" in result["message"]
    world.releases.transition(A, FAILED, result["message"])

    begin(world, attempt=2)
    assert following(world, arn)["outcome"] == "waiting"
    assert following(world, arn)["outcome"] == "waiting"
    assert labellings(world, arn) == [(f"{A}-1", "ABORTED"), (f"{A}-2", "RUNNING")]
    described: Any = world.stepfunctions.describe_execution(executionArn=executions.arn_of(arn, f"{A}-2"))
    assert described["input"] == INPUT


def test_labelling_is_started_again_once_in_an_attempt(world: World) -> None:
    arn = machine(world)
    begin(world)
    first = executions.ensure(world.stepfunctions, arn, A, INPUT)
    stop_by_hand(world, first)
    assert following(world, arn)["outcome"] == "waiting"
    stop_by_hand(world, executions.arn_of(arn, f"{A}-2"))
    assert following(world, arn)["outcome"] == "failed"
    assert len(labellings(world, arn)) == 2


def test_labelling_that_created_no_job_fails_the_release(world: World) -> None:
    arn = machine(world, PASSING)
    begin(world)
    executions.ensure(world.stepfunctions, arn, A, INPUT)
    _wait_for_end(world, arn)
    result = following(world, arn)
    assert result["outcome"] == "failed"
    assert "SUCCEEDED" in result["message"]


def test_job_of_an_ended_labelling_that_is_not_readable_yet_ends_no_release(world: World) -> None:
    arn = machine(world, PASSING)
    begin(world)
    executions.ensure(world.stepfunctions, arn, A, INPUT)
    _wait_for_end(world, arn)
    world.start_job(A)
    missing = times(2, refusal("ResourceNotFoundException", status=404))
    late = Meddled(world.bedrock, before={"get_model_customization_job": missing})
    result = poll(world, bedrock=late, labelling_machine_arn=arn, absence_seconds=1)
    assert (result["outcome"], labellings(world, arn)) == ("waiting", [(f"{A}-1", "SUCCEEDED")])


def test_labelling_that_was_never_started_is_reported(world: World) -> None:
    begin(world)
    result = following(world, machine(world))
    assert result["outcome"] == "failed"
    assert "was never started" in result["message"]


def test_labelling_has_the_releases_time(world: World) -> None:
    arn = machine(world)
    begin(world)
    executions.ensure(world.stepfunctions, arn, A, INPUT)
    world.advance(121 * 3600)
    result = following(world, arn)
    assert result["outcome"] == "failed"
    assert "still runs after 121 h" in result["message"]


def test_reason_of_the_labelling_is_the_releases(world: World) -> None:
    arn = machine(world, {"Type": "Fail", "Error": "LabellingFailed", "Cause": "3 of 4 shards failed"})
    begin(world)
    executions.ensure(world.stepfunctions, arn, A, INPUT)
    _wait_for_end(world, arn)
    world.releases.update(A, labelling=executions.arn_of(arn, f"{A}-1"))
    assert "3 of 4 shards failed" in following(world, arn)["message"]


def _wait_for_end(world: World, arn: str) -> None:
    for _ in range(100_000):
        if labellings(world, arn)[0][1] != "RUNNING":
            return
    pytest.fail("the execution has not ended")
