"""CloudFormation stops waiting for a resource: nothing paid is left, and nothing is paid twice.

It stops because a sibling failed, because no response came within the hour, or because the stack is deleted
while it is created. What was created belongs to the resource, although CloudFormation never got its id. The
waiter of the operation goes on, and creates nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from distilled_router.bedrock.naming import release_name
from distilled_router.release.table import LIVE
from tests.engine.apps import MODEL, NAME, OTHER_MODEL, OWNER, STACK, App
from tests.engine.engine import Engine, until
from tests.engine.release_apps import Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-cancelled")]

WAIT_SCALE = 0.05
JOB, THROUGHPUT, RELEASE = (
    "Custom::BedrockDistillationJob",
    "Custom::BedrockProvisionedThroughput",
    "Custom::BedrockRelease",
)
CREATE_JOB, BUY = "CreateModelCustomizationJob", "CreateProvisionedModelThroughput"
ROLE = "Could not assume provided IAM role. Please verify that the role exists."
HOURLY = f"{NAME}-1mu"

Ending = Callable[[Engine, str, str], None]


def cancelled(engine: Engine, stack: str, kind: str) -> None:
    """Cancel the Create of a resource in progress, as if a sibling had failed."""
    engine.cancel(stack, resource_type=kind)
    assert engine.wait(stack).status == "ROLLBACK_COMPLETE"
    engine.withdraw_cancellations()
    assert engine.delete(stack).succeeded


def timed_out(engine: Engine, stack: str, kind: str) -> None:
    """Let CloudFormation give up, since no response came."""
    engine.cancel(stack, resource_type=kind, how="timeout")
    cancelled(engine, stack, kind)


def deleted(engine: Engine, stack: str, kind: str) -> None:
    """Delete the stack, which is CREATE_IN_PROGRESS."""
    assert engine.status(stack) == "CREATE_IN_PROGRESS"
    assert engine.delete(stack).succeeded


ENDINGS = pytest.mark.parametrize("end", [cancelled, timed_out, deleted])


def running(engine: Engine) -> list[str]:
    """Return the jobs that run, and the models, deployments and throughput that exist."""
    jobs = [name for name, job in engine.held("jobs").items() if job["status"] == "InProgress"]
    return [*jobs, *(name for kind in ("models", "deployments", "throughput") for name in engine.held(kind))]


@ENDINGS
def test_a_job_whose_create_ended_without_a_response_is_stopped(team: Engine, app: App, end: Ending) -> None:
    team.bedrock("/_faults", {"kind": "job_stalled", "count": None})
    team.lose_response(STACK, resource_type=JOB)
    team.begin(STACK, app.template("job"))
    until(lambda: team.held("jobs"))
    end(team, STACK, JOB)
    assert running(team) == []
    assert len(team.calls(CREATE_JOB)) == 1


@ENDINGS
def test_a_model_whose_create_ended_without_a_response_is_deleted(
    team: Engine, app: App, end: Ending
) -> None:
    team.lose_response(STACK, resource_type=JOB)
    team.begin(STACK, app.template("job"))
    until(lambda: team.held("models"))
    end(team, STACK, JOB)
    assert running(team) == []


def test_the_waiter_of_an_update_that_was_taken_back_creates_no_job(team: Engine, app: App) -> None:
    team.bedrock("/_faults", {"kind": "job_stalled", "count": None})
    assert team.deploy(STACK, app.template("job")).succeeded
    # The new job can't be created yet; isComplete is asked again and again.
    team.bedrock("/_faults", {"kind": "validation", "operation": CREATE_JOB, "message": ROLE, "count": None})
    team.begin(STACK, app.template("job-again"))
    until(lambda: len(team.bedrock(f"/_calls?operation={CREATE_JOB}")) > 1)
    team.cancel(STACK, resource_type=JOB, operation="Update")
    assert team.wait(STACK).status == "UPDATE_ROLLBACK_COMPLETE"
    team.bedrock("/_faults", delete=True)
    team.settle()
    assert len(team.calls(CREATE_JOB)) == 1
    assert len(running(team)) == 1
    assert team.delete(STACK).succeeded
    assert running(team) == []


def test_a_job_of_an_update_that_was_taken_back_is_stopped(team: Engine, app: App) -> None:
    team.bedrock("/_faults", {"kind": "job_stalled", "count": None})
    assert team.deploy(STACK, app.template("job")).succeeded
    (first,) = running(team)
    team.lose_response(STACK, resource_type=JOB, operation="Update")
    team.begin(STACK, app.template("job-again"))
    until(lambda: len(running(team)) == 2)
    team.cancel(STACK, resource_type=JOB)
    assert team.wait(STACK).status == "UPDATE_ROLLBACK_COMPLETE"
    team.settle()
    assert running(team) == [first]


def test_a_model_of_an_update_that_was_taken_back_is_deleted(team: Engine, app: App) -> None:
    assert team.deploy(STACK, app.template("job")).succeeded
    until(lambda: team.held("models"))
    (first,) = team.held("models")
    team.lose_response(STACK, resource_type=JOB, operation="Update")
    team.begin(STACK, app.template("job-again"))
    until(lambda: len(team.held("models")) == 2)
    team.cancel(STACK, resource_type=JOB)
    assert team.wait(STACK).status == "UPDATE_ROLLBACK_COMPLETE"
    assert running(team) == [first]


@pytest.fixture
def templates(app: App, models: list[str]) -> Mapping[str, dict[str, Any]]:
    """Return the variants of the throughput's stack."""
    arns = dict(zip((MODEL, OTHER_MODEL), models, strict=True))
    return {name: app.template(name, arns) for name in ("throughput", "throughput-committed")}


@ENDINGS
def test_throughput_whose_create_ended_without_a_response_is_deleted(
    team: Engine, templates: Mapping[str, dict[str, Any]], end: Ending
) -> None:
    team.lose_response(STACK, resource_type=THROUGHPUT)
    team.begin(STACK, templates["throughput"])
    until(lambda: team.held("throughput"))
    end(team, STACK, THROUGHPUT)
    assert team.held("throughput") == {}
    assert len(team.calls(BUY)) == 1


def test_the_waiter_of_an_update_that_was_taken_back_buys_no_throughput(
    team: Engine, templates: Mapping[str, dict[str, Any]]
) -> None:
    assert team.deploy(STACK, templates["throughput"]).succeeded
    team.bedrock("/_faults", {"kind": "throttled", "operation": BUY, "count": None})
    team.begin(STACK, templates["throughput-committed"])
    until(lambda: len(team.bedrock(f"/_calls?operation={BUY}")) > 1)
    team.cancel(STACK, resource_type=THROUGHPUT, operation="Update")
    assert team.wait(STACK).status == "UPDATE_ROLLBACK_COMPLETE"
    team.bedrock("/_faults", delete=True)
    team.settle()
    assert len(team.calls(BUY)) == 1
    assert [*team.held("throughput")] == [HOURLY]
    assert team.delete(STACK).succeeded
    assert team.held("throughput") == {}


@ENDINGS
def test_a_release_whose_create_ended_without_a_response_is_ended(scene: Scene, end: Ending) -> None:
    scene.engine.lose_response(scene.stack, resource_type=RELEASE)
    digest = scene.begin(dwell_seconds=600)
    scene.until(lambda: scene.served() == (digest,), "the release is rolled out")
    assert scene.status() == "CREATE_IN_PROGRESS"
    end(scene.engine, scene.stack, RELEASE)
    assert scene.left() == []


def test_a_release_of_an_update_that_was_taken_back_leaves_the_live_release(scene: Scene) -> None:
    first = scene.deploy()
    scene.goes_live(first)
    scene.engine.lose_response(scene.stack, resource_type=RELEASE, operation="Update")
    second = scene.begin(nonce="second", dwell_seconds=600)
    scene.until(lambda: second in scene.served(), "the second release is rolled out")
    scene.engine.cancel(scene.stack, resource_type=RELEASE)
    assert scene.wait().status == "UPDATE_ROLLBACK_COMPLETE"
    scene.until(lambda: not scene.running(), "the second release's execution ends")
    scene.until(lambda: scene.served() == (first,), "the first release serves alone")
    assert (scene.declared(), scene.release(first).state) == (first, LIVE)
    kept = {release_name(OWNER, first)}

    def is_swept() -> bool:
        """Its model is claimed until its job's resource, which CloudFormation deletes later, gives it up."""
        scene.sweep()
        return {*running(scene.engine)} == kept

    scene.until(is_swept, "the second release's deployment and model go")
    assert scene.destroy().succeeded
    assert scene.left() == []


def test_a_stack_deleted_while_it_waits_for_its_release_leaves_nothing(scene: Scene) -> None:
    digest = scene.begin(wait=(1200, 1200), dwell_seconds=600)
    scene.until(lambda: scene.served() == (digest,), "the release is rolled out")
    deleted(scene.engine, scene.stack, "")
    assert scene.left() == []
