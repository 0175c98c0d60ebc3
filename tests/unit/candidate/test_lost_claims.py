"""A release ends with its job's resource, and doubts that something does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from candidate import deploy_candidate
from distilled_router.bedrock import jobs
from distilled_router.bedrock.naming import attempt_name
from distilled_router.bedrock.ownership import Claimant
from tests.unit.candidate import polls
from tests.unit.candidate.polls import CREATE, NAME, TWICE, all_jobs, claims_on, job_of, poll
from tests.unit.local.bedrock.scenes import HOUR, MINUTE
from tests.unit.release_world import JOB, RELEASE, A, Proxy, World

SECOND = attempt_name(NAME, 2)
# Reads that lag are repeated after half a second.
PATIENT: dict[str, Any] = {"absence_seconds": 1}
DELETED = f"the resource of {NAME} was deleted from its stack"


def disclaim(world: World, *, stop: bool) -> None:
    """Delete the job's resource, as far as its first poll goes."""
    for job in jobs.attempts(world.bedrock, NAME):
        assert jobs.disclaim(world.bedrock, job, JOB)
        if stop:
            jobs.stop(world.bedrock, job)


def lagging(call: Callable[..., Any], answer: Any = None, times: int = 1) -> Callable[..., Any]:
    """Return a read whose first answers are outdated: `answer`, or that the resource does not exist."""
    left = times

    def read(**parameters: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            return call(**parameters)
        if answer is None:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "Get")
        return answer

    return read


def test_job_whose_resource_was_deleted_is_stopped_by_the_next_poll(world: World) -> None:
    """Another attempt may have been created after the Delete's look."""
    world.begin(A)
    world.start_job(A)
    assert poll(world, **TWICE)["outcome"] == "waiting"
    disclaim(world, stop=False)
    result = poll(world, **TWICE)
    assert (result["outcome"], result["message"]) == ("failed", f"job {NAME} was stopped: {DELETED}")
    world.advance(HOUR)
    assert all_jobs(world) == {NAME: "Stopped"}


def test_release_that_creates_no_job_leaves_stopping_to_the_jobs_resource(world: World) -> None:
    """Its role may not stop jobs."""
    world.begin(A)
    world.start_job(A)
    disclaim(world, stop=False)
    result = poll(world)
    assert (result["outcome"], result["message"]) == ("failed", f"job {NAME} is InProgress: {DELETED}")
    assert all_jobs(world) == {NAME: "InProgress"}


def test_attempt_of_a_deleted_resource_is_stopped_and_loses_its_copied_claims(world: World) -> None:
    world.begin(A)
    world.server.fault("job_failed")
    world.start_job(A)
    world.advance(HOUR)
    poll(world, **TWICE)
    # The Delete looked before the second attempt was listed.
    first = jobs.find(world.bedrock, NAME)
    assert first
    jobs.disclaim(world.bedrock, first, JOB)
    result = poll(world, **TWICE)
    assert result["message"] == f"job {SECOND} was stopped: {DELETED}"
    assert claims_on(world, job_of(world, SECOND)["jobArn"]) == {}
    world.advance(HOUR)
    assert all_jobs(world)[SECOND] == "Stopped"


def test_job_that_its_own_resource_stopped_is_not_blamed_on_somebody_else(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    disclaim(world, stop=True)
    for _ in range(2):
        message = poll(world)["message"]
        assert DELETED in message
        assert "not by this release" not in message
        world.advance(HOUR)


def test_tags_that_are_not_readable_yet_stop_no_job(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    late = Proxy(
        world.bedrock, list_tags_for_resource=lagging(world.bedrock.list_tags_for_resource, {"tags": []})
    )
    assert poll(world, bedrock=late, **PATIENT)["outcome"] == "waiting"
    assert all_jobs(world) == {NAME: "InProgress"}


def test_failed_job_whose_tags_are_not_readable_yet_is_retried(world: World) -> None:
    world.begin(A)
    world.server.fault("job_failed")
    world.start_job(A)
    world.advance(HOUR)
    late = Proxy(
        world.bedrock, list_tags_for_resource=lagging(world.bedrock.list_tags_for_resource, {"tags": []})
    )
    assert poll(world, bedrock=late, **TWICE, **PATIENT)["outcome"] == "waiting"
    assert all_jobs(world) == {NAME: "Failed", SECOND: "InProgress"}


def test_job_that_is_not_readable_yet_ends_no_release(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    late = Proxy(
        world.bedrock, get_model_customization_job=lagging(world.bedrock.get_model_customization_job, None, 2)
    )
    assert poll(world, bedrock=late, **PATIENT)["outcome"] == "waiting"


@pytest.mark.parametrize("poll_seconds", [0, 300])
def test_model_that_is_not_readable_yet_ends_no_release(world: World, poll_seconds: int) -> None:
    world.begin(A)
    world.train(A)
    late = Proxy(world.bedrock, get_custom_model=lagging(world.bedrock.get_custom_model))
    assert poll(world, bedrock=late, poll_seconds=poll_seconds, **PATIENT)["outcome"] == "done"


@pytest.mark.parametrize("poll_seconds", [0, 300])
def test_deployment_that_is_not_readable_yet_ends_no_release(world: World, poll_seconds: int) -> None:
    world.begin(A, model_arn=world.train(A))
    env = polls.candidate_env(poll_seconds=poll_seconds, **PATIENT)
    deploy_candidate.deploy(A, world.bedrock, world.releases, env)
    late = Proxy(
        world.bedrock, get_custom_model_deployment=lagging(world.bedrock.get_custom_model_deployment)
    )
    world.advance(10 * MINUTE)
    assert deploy_candidate.deploy(A, late, world.releases, env)["outcome"] == "done"


@pytest.mark.parametrize("poll_seconds", [0, 300])
def test_poll_interval_does_not_shorten_the_doubt(world: World, poll_seconds: int) -> None:
    world.begin(A)
    world.start_job(A)
    late = Proxy(
        world.bedrock, get_model_customization_job=lagging(world.bedrock.get_model_customization_job, None, 2)
    )
    result = poll(world, bedrock=late, poll_seconds=poll_seconds, **PATIENT)
    assert result["outcome"] == "waiting"


def test_job_is_not_retried_once_its_resource_was_deleted(world: World) -> None:
    world.begin(A)
    world.server.fault("job_failed")
    world.start_job(A)
    world.advance(HOUR)
    disclaim(world, stop=True)
    assert DELETED in poll(world, **TWICE)["message"]
    assert world.calls(CREATE) == 1


def test_attempt_created_while_the_resource_is_deleted_is_stopped(world: World) -> None:
    world.begin(A)
    world.server.fault("job_failed")
    world.start_job(A)
    world.advance(HOUR)

    def create(**parameters: Any) -> Any:
        disclaim(world, stop=True)
        return world.bedrock.create_model_customization_job(**parameters)

    raced = Proxy(world.bedrock, create_model_customization_job=create)
    assert DELETED in poll(world, bedrock=raced, **TWICE)["message"]
    assert claims_on(world, job_of(world, SECOND)["jobArn"]) == {}
    world.advance(HOUR)
    assert all_jobs(world) == {NAME: "Failed", SECOND: "Stopped"}


def test_model_whose_tags_are_not_readable_yet_is_claimed(world: World) -> None:
    """Otherwise the Delete of the job's resource would delete it under the release."""
    world.begin(A)
    model = world.train(A)
    read = lagging(world.bedrock.list_tags_for_resource, {"tags": []}, 3)
    late = Proxy(world.bedrock, list_tags_for_resource=read)
    assert poll(world, bedrock=late, absence_seconds=2)["outcome"] == "done"
    assert claims_on(world, model).keys() == {JOB.key, RELEASE.key}


@pytest.mark.parametrize("is_moved", [True, False])
def test_model_is_not_claimed_for_a_resource_that_was_deleted_meanwhile(world: World, is_moved: bool) -> None:
    """Nobody would remove that claim, and so the Delete of the job's resource would leave the model."""
    world.begin(A)
    model = world.train(A)
    world.releases.declarations.declare(RELEASE, A)

    def read(**parameters: Any) -> Any:
        if is_moved:
            world.releases.declarations.declare(Claimant(RELEASE.stack_id, "ReleaseMoved"), A)
        world.close()
        return world.bedrock.get_custom_model(**parameters)

    result = poll(world, bedrock=Proxy(world.bedrock, get_custom_model=read))
    assert result["outcome"] == ("waiting" if is_moved else "failed")
    assert claims_on(world, model).keys() == {JOB.key}
