"""DistillationJob with `MadeLater`: a state machine creates the job, which belongs to the resource."""

from __future__ import annotations

from typing import Any

import pytest

from distillation_job.handler import create_if_wanted, with_files
from distilled_router.aws.fence import SupersededError
from distilled_router.bedrock import jobs
from distilled_router.bedrock.naming import HOLDOUT_TAG, TRAINING_TAG
from distilled_router.bedrock.roles import NEW_ROLE_SECONDS
from local.bedrock.faults import ROLE_TEXTS
from tests.unit import framework
from tests.unit.resource_scenes import (
    CREATE,
    HOUR,
    JOB,
    NAME,
    ROLE,
    ROLE_ERROR,
    STOP,
    Meddled,
    World,
    job_properties,
    refusal,
    spec,
    times,
)

DAY = 24 * HOUR
LATER = {"MadeLater": "true"}


def create_job(world: World, *wanted: bool, seconds: float = 0.0, **changes: Any) -> Any:
    """Run the step that creates the job; `wanted` are the results of checking that the execution runs."""
    results = iter(wanted or (True, True))

    def check_runs() -> None:
        if not next(results):
            raise SupersededError("the execution was stopped")

    request = jobs.Request(JOB, "arn:aws:states:us-east-1:000000000000:execution:labelling:1", check_runs)
    return create_if_wanted(spec(**changes), world.bedrock, request, allow_legacy=False, seconds=seconds)


def test_create_event_creates_no_job(world: World) -> None:
    response = world.jobs().send(framework.create(job_properties(**LATER)))
    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert response.data["Status"] == "NotMadeYet"
    assert response.data["JobArn"] == ""
    assert world.server.calls(CREATE) == []


def test_create_event_fails_for_a_model_past_its_end_of_life(world: World) -> None:
    world.server.lifecycle("amazon.nova-pro-v1:0", end=world.server.clock.now() - 1)
    response = world.jobs().send(framework.create(job_properties(**LATER)))
    assert not response.succeeded
    assert "amazon.nova-pro-v1:0" in response.reason


def test_step_creates_the_job_once(world: World) -> None:
    world.jobs().send(framework.create(job_properties(**LATER)))
    assert create_job(world)["outcome"] == "done"
    assert create_job(world)["outcome"] == "done"
    assert len(world.server.calls(CREATE)) == 1
    assert world.job()["name"] == NAME
    assert JOB.holds(world.job()["tags"])


def test_redeploy_after_the_job_was_created_returns_it(world: World) -> None:
    create_job(world)
    old = job_properties(**LATER)
    response = world.jobs().send(
        framework.update(NAME, job_properties(**{**LATER, "RetainModel": "true"}), old)
    )
    assert response.succeeded
    assert response.data["JobArn"] == world.job()["arn"]
    assert len(world.server.calls(CREATE)) == 1


def test_job_that_is_found_late_is_claimed_by_a_renamed_resource(world: World) -> None:
    """Otherwise the Delete of the old name would stop it."""
    create_job(world)
    missing = times(1, refusal("ResourceNotFoundException", status=404))
    late = Meddled(world.bedrock, before={"get_model_customization_job": missing})
    event = framework.create(job_properties(**LATER), LogicalResourceId="Renamed5F6E7A8B")
    assert world.jobs(late, absence_seconds=0.6).send(event).succeeded

    assert world.jobs().send(framework.delete(NAME, job_properties(**LATER))).succeeded
    assert world.running() == [NAME]


def test_update_before_the_job_was_created_creates_none(world: World) -> None:
    old = job_properties(**LATER)
    new = job_properties(**{**LATER, "RetainModel": "true"})
    response = world.jobs().send(framework.update(NAME, new, old))
    assert (response.succeeded, response.data["Status"]) == (True, "NotMadeYet")
    assert world.server.calls(CREATE) == []


def test_delete_stops_the_job_that_the_step_created(world: World) -> None:
    create_job(world)
    response = world.jobs().send(framework.delete(NAME, job_properties(**LATER)))
    assert response.succeeded
    assert world.job()["status"] == "Stopped"


def test_delete_before_the_job_was_created_completes_at_once(world: World) -> None:
    response = world.jobs().send(framework.delete(NAME, job_properties(**LATER)))
    assert (response.succeeded, response.polls) == (True, 1)


def test_step_of_a_stopped_execution_creates_nothing(world: World) -> None:
    result = create_job(world, False)
    assert result["outcome"] == "failed"
    assert world.server.calls(CREATE) == []


def test_job_created_while_the_execution_stops_is_stopped(world: World) -> None:
    result = create_job(world, True, False)
    assert result["outcome"] == "failed"
    assert len(world.server.calls(STOP)) == 1
    world.server.advance(HOUR)
    assert world.job()["status"] == "Stopped"


@pytest.mark.parametrize("kind", ["throttled", "unavailable"])
def test_step_is_retried_after_a_temporary_error(world: World, kind: str) -> None:
    world.server.fault(kind, operation=CREATE)
    assert create_job(world)["outcome"] == "waiting"
    assert create_job(world)["outcome"] == "done"


def test_step_waits_until_a_new_role_can_be_assumed(world: World) -> None:
    world.server.lag(role_seconds=NEW_ROLE_SECONDS)
    for text in ROLE_TEXTS:
        result = create_job(world)
        assert (result["outcome"], text in result["message"]) == ("waiting", True)
    world.server.advance(NEW_ROLE_SECONDS)
    assert create_job(world)["outcome"] == "done"


def test_step_gives_up_on_a_role_that_does_not_become_ready(world: World) -> None:
    world.server.lag(role_seconds=DAY)
    result = create_job(world, seconds=NEW_ROLE_SECONDS + 1)
    assert result["outcome"] == "failed"
    assert ROLE_ERROR in result["message"]
    assert f"policy of {ROLE} must" in result["message"]


def test_step_is_tried_again_ever_less_often(world: World) -> None:
    world.server.fault("throttled", operation=CREATE, count=2)
    assert create_job(world)["seconds"] == 15
    assert create_job(world, seconds=DAY)["seconds"] == 3_600


def test_step_returns_the_reason_why_bedrock_rejects_the_job(world: World) -> None:
    world.server.fault("over_quota", operation=CREATE)
    result = create_job(world)
    assert result["outcome"] == "failed"
    assert "Service Quotas" in result["message"]


def test_hashes_of_curated_files_are_tags_of_the_job(world: World) -> None:
    files = {"training": "a" * 64, "holdout": "b" * 64, "validation": "c" * 64}
    tagged = with_files(spec(), files)
    assert {tagged.tags[tag] for tag in (TRAINING_TAG, HOLDOUT_TAG)} == {"a" * 64, "b" * 64}
    assert (tagged.training.key, tagged.training.sha256) == ("datasets/d1/training.jsonl", "a" * 64)
    # An execution that began before there were hashes has none.
    assert with_files(spec(), {}) == spec()


def test_step_creates_no_job_of_a_replaced_file(world: World) -> None:
    def check_data() -> None:
        with_files(spec(), {"training": "a" * 64}).training.check(world.s3)

    request = jobs.Request(JOB, "arn:execution", check_data=check_data)
    result = create_if_wanted(spec(), world.bedrock, request, allow_legacy=False)
    assert result["outcome"] == "failed"
    assert f"expected {'a' * 64}" in result["message"]
    assert world.server.calls(CREATE) == []
