"""A request that waits too long says for what, in place of the framework's "Operation timed out"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.unit import framework
from tests.unit.entry_points import Play, Theatre
from tests.unit.framework import Response
from tests.unit.release_world import A
from tests.unit.resource_scenes import CREATE
from tests.unit.subjects import LOGICAL_ID, SUBJECTS, prepared

FOR_EVER = 10**9
IN_USE = "The provided job name is currently in use."


type Stuck = Callable[[Play, pytest.MonkeyPatch], None]


def refused(operation: str) -> Stuck:
    """Return what makes Bedrock refuse an operation with a conflict for ever."""
    return lambda play, _: play.world.server.fault("conflict", operation=operation, count=None)


def unreadable(play: Play, _: pytest.MonkeyPatch) -> None:
    play.world.server.lag(get_seconds=FOR_EVER)


def name_in_use(play: Play, _: pytest.MonkeyPatch) -> None:
    play.world.server.fault("validation", operation=CREATE, message=IN_USE, count=None)


def step_runs(play: Play, _: pytest.MonkeyPatch) -> None:
    play.world.releases.update(A, creating_until=int(play.world.now) + 300)


def execution_stays(play: Play, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(play.world.stepfunctions, "stop_execution", lambda **_: None)


@dataclass(frozen=True)
class Wait:
    """What a Create or Delete of a subject waits for, once it is `stuck`, and what its reason says."""

    subject: str
    kind: str
    stuck: Stuck
    told: tuple[str, ...]


WAITS = {
    "unreadable job": Wait(
        "running job", "Create", unreadable, ("Job video-router-prod-", "not readable yet")
    ),
    "name in use": Wait("running job", "Create", name_in_use, (IN_USE, "does not show the job")),
    "running job": Wait(
        "running job",
        "Delete",
        refused("StopModelCustomizationJob"),
        ("Job video-router-prod-", "is being stopped: validation"),
    ),
    "throughput": Wait(
        "other throughput",
        "Delete",
        refused("DeleteProvisionedModelThroughput"),
        ("Throughput is being deleted", ":provisioned-model/", "is InService"),
    ),
    "release": Wait(
        "release",
        "Delete",
        refused("DeleteCustomModelDeployment"),
        ("has not deleted or stopped yet", ":custom-model-deployment/"),
    ),
    "release's step": Wait("release", "Delete", step_runs, ("a step is still running",)),
    "labelling's batch job": Wait(
        "labelling",
        "Delete",
        refused("StopModelInvocationJob"),
        ("Batch jobs are being stopped", ":model-invocation-job/", " is Validating"),
    ),
    "labelling's execution": Wait(
        "labelling", "Delete", execution_stays, ("Executions of arn:aws:states:", "are being stopped")
    ),
}


def sent(play: Play, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> Response:
    """Send the request that waits, for two minutes at most."""
    subject = SUBJECTS[wait.subject]
    properties, resource = subject.first(play), play.resource(subject.folder)
    create = framework.create(properties, LogicalResourceId=LOGICAL_ID)
    if wait.kind == "Create":
        wait.stuck(play, monkeypatch)
        monkeypatch.setenv("WAIT_SECONDS", "120")
        return resource.send(create)
    physical_id = resource.send(create).physical_id
    subject.grow(play)
    wait.stuck(play, monkeypatch)
    monkeypatch.setenv("WAIT_SECONDS", "120")
    return play.resource(subject.folder).send(
        framework.delete(physical_id, properties, LogicalResourceId=LOGICAL_ID)
    )


@pytest.mark.parametrize("name", WAITS)
def test_wait_that_does_not_end_says_for_what(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wait = WAITS[name]
    with theatre.play(prepared(SUBJECTS[wait.subject])) as play:
        response = sent(play, wait, monkeypatch)

    assert not response.succeeded
    assert [text for text in ("was not complete after", *wait.told) if text not in response.reason] == []
