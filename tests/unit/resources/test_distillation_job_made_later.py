"""DistillationJob whose job a state machine makes later: the resource's from the first deployment on."""

from __future__ import annotations

from typing import Any

import pytest

from distillation_job.handler import made
from tests.unit.resources import framework
from tests.unit.resources.scenes import (
    CREATE,
    HOUR,
    NAME,
    ROLE_ERROR,
    STOP,
    World,
    job_properties,
    spec,
)

LATER = {"MadeLater": "true"}


def make(world: World, *wanted: bool, **changes: Any) -> Any:
    """The stage that makes the job; `wanted` are the answers to whether the execution still runs."""
    answers = iter(wanted or (True, True))
    return made(spec(**changes), world.bedrock, lambda: next(answers), allow_legacy=False)


def test_create_makes_no_job(world: World) -> None:
    response = world.jobs().send(framework.create(job_properties(**LATER)))
    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert response.data["Status"] == "NotMadeYet"
    assert response.data["JobArn"] == ""
    assert world.server.calls(CREATE) == []


def test_create_refuses_a_model_that_has_ended_before_anything_is_labelled(world: World) -> None:
    world.server.lifecycle("amazon.nova-pro-v1:0", end=world.server.clock.now() - 1)
    response = world.jobs().send(framework.create(job_properties(**LATER)))
    assert not response.succeeded
    assert "amazon.nova-pro-v1:0" in response.reason


def test_stage_makes_the_job_once(world: World) -> None:
    world.jobs().send(framework.create(job_properties(**LATER)))
    assert make(world)["outcome"] == "done"
    assert make(world)["outcome"] == "done"
    assert len(world.server.calls(CREATE)) == 1
    assert world.job()["name"] == NAME


def test_redeploy_after_the_job_was_made_shows_it(world: World) -> None:
    make(world)
    old = job_properties(**LATER)
    response = world.jobs().send(
        framework.update(NAME, job_properties(**{**LATER, "RetainModel": "true"}), old)
    )
    assert response.succeeded
    assert response.data["JobArn"] == world.job()["arn"]
    assert len(world.server.calls(CREATE)) == 1


def test_update_before_the_job_was_made_makes_none(world: World) -> None:
    old = job_properties(**LATER)
    new = job_properties(**{**LATER, "RetainModel": "true"})
    response = world.jobs().send(framework.update(NAME, new, old))
    assert (response.succeeded, response.data["Status"]) == (True, "NotMadeYet")
    assert world.server.calls(CREATE) == []


def test_delete_stops_the_job_that_the_stage_made(world: World) -> None:
    make(world)
    response = world.jobs().send(framework.delete(NAME, job_properties(**LATER)))
    assert response.succeeded
    assert world.job()["status"] == "Stopped"


def test_delete_before_the_job_was_made_is_done_at_once(world: World) -> None:
    response = world.jobs().send(framework.delete(NAME, job_properties(**LATER)))
    assert (response.succeeded, response.polls) == (True, 1)


def test_stage_of_a_stopped_execution_makes_nothing(world: World) -> None:
    result = make(world, False)
    assert result["outcome"] == "failed"
    assert world.server.calls(CREATE) == []


def test_job_that_was_made_while_the_execution_was_stopped_is_stopped(world: World) -> None:
    result = make(world, True, False)
    assert result["outcome"] == "failed"
    assert len(world.server.calls(STOP)) == 1
    world.server.advance(HOUR)
    assert world.job()["status"] == "Stopped"


@pytest.mark.parametrize("kind", ["throttled", "unavailable"])
def test_stage_asks_again_what_fails_for_a_reason_that_passes(world: World, kind: str) -> None:
    world.server.fault(kind, operation=CREATE)
    assert make(world)["outcome"] == "waiting"
    assert make(world)["outcome"] == "done"


def test_stage_waits_for_a_role_that_is_not_known_yet(world: World) -> None:
    world.server.fault("validation", operation=CREATE, message=ROLE_ERROR)
    assert make(world)["outcome"] == "waiting"


def test_stage_tells_why_bedrock_refuses(world: World) -> None:
    world.server.fault("over_quota", operation=CREATE)
    result = make(world)
    assert result["outcome"] == "failed"
    assert "Service Quotas" in result["message"]
