"""DistillationJob: a job belongs to whichever resources claim it, and only the newest request creates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from distillation_job.handler import job_spec
from distilled_router.aws.fence import SupersededError
from distilled_router.bedrock import jobs
from distilled_router.bedrock.ownership import Claimant, claims
from tests.unit import framework
from tests.unit.release_world import Proxy
from tests.unit.requests_table import register
from tests.unit.resource_scenes import (
    CREATE,
    HOUR,
    JOB,
    NAME,
    NEXT,
    OWNER,
    STOP,
    Meddled,
    World,
    job_properties,
    refusal,
    times,
)

NEXT_NAME = f"{OWNER}-{NEXT}"
RENAMED = Claimant(framework.STACK, "Renamed5F6E7A8B")
CREATE_METHOD = "create_model_customization_job"


def renamed(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event for the same construct under another logical id."""
    return {**event, "LogicalResourceId": RENAMED.logical_id}


@pytest.fixture
def job(world: World) -> str:
    """Create the job; return its ARN."""
    assert world.jobs().send(framework.create(job_properties())).succeeded
    return str(world.job()["arn"])


def test_renamed_construct_keeps_its_job_and_its_model(world: World, job: str) -> None:
    # CloudFormation creates the new logical id first, and then deletes the old one.
    assert world.jobs().send(renamed(framework.create(job_properties()))).succeeded
    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert (world.running(), world.count(CREATE)) == ([NAME], 1)
    assert claims(world.tags(job)).keys() == {RENAMED.key}

    # The model gets the tags that were fixed when the job was created.
    world.server.advance(3 * HOUR)
    assert world.jobs().send(renamed(framework.delete(NAME, job_properties()))).succeeded
    assert world.server.state()["models"] == []


def test_renamed_construct_keeps_a_finished_model(world: World, job: str) -> None:
    world.server.advance(3 * HOUR)
    model = str(world.job()["model"])
    world.jobs().send(renamed(framework.create(job_properties())))
    world.jobs().send(framework.delete(NAME, job_properties(RetainOutput="false")))

    assert claims(world.tags(model)).keys() == claims(world.tags(job)).keys() == {RENAMED.key}
    world.jobs().send(renamed(framework.delete(NAME, job_properties())))
    assert world.server.state()["models"] == []


def test_model_trained_between_rename_and_delete_belongs_to_the_new_name(world: World, job: str) -> None:
    world.jobs().send(renamed(framework.create(job_properties())))
    world.server.advance(3 * HOUR)
    model = str(world.job()["model"])
    assert claims(world.tags(model)).keys() == {JOB.key}

    world.jobs().send(framework.delete(NAME, job_properties()))
    assert claims(world.tags(model)).keys() == {RENAMED.key}


def test_rolled_back_rename_keeps_the_job_for_the_old_name(world: World, job: str) -> None:
    world.jobs().send(renamed(framework.create(job_properties())))
    assert world.jobs().send(renamed(framework.delete(NAME, job_properties()))).succeeded

    assert world.running() == [NAME]
    assert claims(world.tags(job)).keys() == {JOB.key}
    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert world.running() == []


def test_rename_is_complete_once_its_claim_is_seen(world: World, job: str) -> None:
    """Otherwise the Delete of the old name, which follows, would see no other claim and stop the job."""
    world.server.lag(tags_seconds=20)
    response = world.jobs().send(renamed(framework.create(job_properties())))
    assert (response.succeeded, response.polls > 1) == (True, True)

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert world.running() == [NAME]


def test_job_of_a_rolled_back_update_is_stopped_although_it_is_found_late(world: World, job: str) -> None:
    world.jobs().begin(framework.update(NAME, job_properties(NEXT), job_properties())).poll()
    # Neither by the look for claims nor by the next one.
    missing = times(2, refusal("ResourceNotFoundException", status=404))

    def read(jobIdentifier: str) -> Any:  # noqa: N803 - as the API spells it
        if jobIdentifier == NEXT_NAME:
            missing()
        return world.bedrock.get_model_customization_job(jobIdentifier=jobIdentifier)

    late = world.jobs(Proxy(world.bedrock, get_model_customization_job=read), absence_seconds=0.6)
    assert late.send(framework.update(NAME, job_properties(), job_properties(NEXT))).succeeded
    assert world.running() == [NAME]


def test_rolled_back_replacement_leaves_a_job_that_others_claim(world: World, job: str) -> None:
    world.jobs().send(renamed(framework.create(job_properties(NEXT))))
    world.jobs().send(framework.update(NAME, job_properties(NEXT), job_properties()))

    back = framework.update(NAME, job_properties(), job_properties(NEXT))
    assert world.jobs().send(back).succeeded

    assert sorted(world.running()) == sorted([NAME, NEXT_NAME])
    assert claims(world.job(NEXT_NAME)["tags"]).keys() == {RENAMED.key}


def test_deletes_of_both_names_at_once_leave_nothing(world: World, job: str) -> None:
    world.jobs().send(renamed(framework.create(job_properties())))
    first = world.jobs().begin(framework.delete(NAME, job_properties()))
    second = world.jobs().begin(renamed(framework.delete(NAME, job_properties())))
    for _ in range(3):
        second.poll()
        first.poll()
    assert world.running() == []
    assert claims(world.tags(job)) == {}


def test_claims_go_before_the_job_is_stopped(world: World, job: str) -> None:
    """So that no release retries it in between."""
    seen: list[dict[str, str]] = []
    looks = Meddled(
        world.bedrock,
        before={"stop_model_customization_job": lambda: seen.append(claims(world.tags(job)))},
    )
    assert world.jobs(looks).send(framework.delete(NAME, job_properties())).succeeded
    assert seen == [{}]


def test_attempt_created_between_the_look_and_the_removal_of_claims_is_stopped(world: World) -> None:
    """The step that created it was killed, and can't stop it itself."""
    first, created = world.failed_job(), list[str]()

    def retry() -> None:
        if not created:
            created.append(jobs.retry(world.bedrock, first, 2))

    late = Meddled(world.bedrock, before={"untag_resource": retry})
    assert world.jobs(late).send(framework.delete(NAME, job_properties())).succeeded
    assert (len(created), world.running()) == (1, [])


def test_retained_model_loses_its_claim(world: World, job: str) -> None:
    world.server.advance(3 * HOUR)
    world.jobs().send(framework.delete(NAME, job_properties(RetainModel="true")))
    (model,) = world.server.state()["models"]
    assert claims(model["tags"]) == claims(world.tags(job)) == {}


def test_waiter_of_a_cancelled_create_creates_nothing(world: World) -> None:
    """CloudFormation deletes with an invented id; the framework's state machine keeps polling."""
    old = world.jobs().begin(framework.create(job_properties()))
    assert world.jobs().send(framework.delete("invented-id", job_properties())).succeeded

    response = old.poll(3)

    assert response
    assert "superseded" in response.reason
    assert world.server.calls(CREATE) == []


def test_waiter_of_a_rolled_back_update_creates_nothing(world: World, job: str) -> None:
    old = world.jobs().begin(framework.update(NAME, job_properties(NEXT), job_properties()))
    world.jobs().send(framework.update(NAME, job_properties(), job_properties(NEXT)))

    old.poll(3)

    assert (world.running(), world.count(CREATE)) == ([NAME], 1)


@pytest.mark.parametrize("failures", [0, 2])
def test_job_created_while_a_newer_request_arrives_is_stopped(world: World, failures: int) -> None:
    """The newer request may have looked before the job existed."""
    newer = framework.delete("invented-id", job_properties())
    hooks = Meddled(
        world.bedrock,
        before={"stop_model_customization_job": times(failures, refusal("ThrottlingException", status=429))},
        after={CREATE_METHOD: lambda: register(world.requests, newer)},
    )

    response = world.jobs(hooks).send(framework.create(job_properties()))

    assert not response.succeeded
    assert world.count(STOP) == 1
    world.server.advance(HOUR)
    assert world.job()["status"] == "Stopped"
    assert claims(world.job()["tags"]) == {}


def test_newer_request_between_two_tries_of_the_create_ends_it(world: World) -> None:
    newer = framework.delete("invented-id", job_properties())
    world.server.fault("throttled", operation=CREATE, count=1)
    client = world.server.client("bedrock", attempts=3)
    client.meta.events.register(f"after-call.bedrock.{CREATE}", lambda **_: register(world.requests, newer))
    client.meta.events.register(f"needs-retry.bedrock.{CREATE}", lambda **_: register(world.requests, newer))

    assert not world.jobs(client).send(framework.create(job_properties())).succeeded
    assert (world.running(), world.count(CREATE)) == ([], 0)


def test_superseded_request_leaves_a_job_that_the_newer_one_adopted(world: World) -> None:
    newer = framework.update(NAME, job_properties(), job_properties(NEXT))

    def adopt() -> None:
        waiter = world.jobs().begin({**newer, "PhysicalResourceId": NEXT_NAME})
        assert waiter.poll()

    hooks = Meddled(world.bedrock, after={CREATE_METHOD: adopt})
    assert not world.jobs(hooks).send(framework.create(job_properties())).succeeded
    assert world.running() == [NAME]
    assert claims(world.job()["tags"]).keys() == {JOB.key}


def test_existing_job_that_a_superseded_request_adopts_loses_the_claim_again(world: World, job: str) -> None:
    newer = renamed(framework.delete(NAME, job_properties()))
    hooks = Meddled(world.bedrock, after={"tag_resource": lambda: register(world.requests, newer)})

    assert not world.jobs(hooks).send(renamed(framework.create(job_properties()))).succeeded

    assert world.running() == [NAME]
    assert claims(world.tags(job)).keys() == {JOB.key}


def test_superseded_request_withdraws_its_claims_on_all_attempts(world: World) -> None:
    jobs.retry(world.bedrock, world.failed_job(), 2)
    newer = renamed(framework.delete(NAME, job_properties()))
    hooks = Meddled(world.bedrock, after={"tag_resource": lambda: register(world.requests, newer)})

    assert not world.jobs(hooks).send(renamed(framework.create(job_properties()))).succeeded

    assert world.running() == [f"{NAME}-2"]
    assert claims(world.job(f"{NAME}-2")["tags"]).keys() == {JOB.key}


def test_name_in_use_by_a_job_that_is_not_readable_yet_is_awaited(world: World) -> None:
    """Failing would make CloudFormation roll back, and stop the job."""
    world.jobs().send(framework.create(job_properties(TrainingDataUri="s3://data/other.jsonl")))
    missing = refusal("ResourceNotFoundException", status=404)
    # For longer than a new role may take.
    late = Meddled(world.bedrock, before={"get_model_customization_job": times(60, missing)})

    response = world.jobs(late).send(framework.create(job_properties()))

    assert response.succeeded
    assert (world.running(), world.count(CREATE)) == ([NAME], 1)


def test_update_of_a_job_that_is_not_readable_at_once_does_not_fail(world: World, job: str) -> None:
    """Its rollback would be refused as well."""
    missing = times(1, refusal("ResourceNotFoundException", status=404))
    late = Meddled(world.bedrock, before={"get_model_customization_job": missing})
    new = job_properties(RetainModel="true")

    response = world.jobs(late, absence_seconds=0.6).send(framework.update(NAME, new, job_properties()))

    assert (response.succeeded, response.data.get("JobArn")) == (True, job)


def test_delete_that_waits_too_long_says_for_what(world: World, job: str) -> None:
    # A waiting job is stopped, and stays in Stopping.
    stuck = Meddled(
        world.bedrock,
        before={"stop_model_customization_job": times(10_000, refusal("ConflictException"))},
    )
    world.requests.now, world.requests.wait_seconds = world.server.clock.now, 120

    response = world.jobs(stuck).send(framework.delete(NAME, job_properties()))

    assert not response.succeeded
    assert response.polls < 60
    assert f"Job {NAME} is being stopped: validation" in response.reason
    assert "was not complete after" in response.reason


def test_create_that_waits_too_long_says_for_what(world: World) -> None:
    world.server.fault("throttled", operation="GetModelCustomizationJob", count=None)
    world.requests.now, world.requests.wait_seconds = world.server.clock.now, 120

    response = world.jobs().send(framework.create(job_properties()))

    assert not response.succeeded
    assert "Too many requests" in response.reason


def test_retry_copies_claims_but_no_notes_of_removed_ones(world: World) -> None:
    first = world.failed_job()
    world.jobs().send(renamed(framework.create(job_properties())))
    world.jobs().send(framework.delete(NAME, job_properties()))
    jobs.retry(world.bedrock, first, 2)
    assert claims(world.job(f"{NAME}-2")["tags"]).keys() == {RENAMED.key}
    assert not any("dropped" in key for key in world.job(f"{NAME}-2")["tags"])


def test_job_that_is_not_readable_yet_when_its_request_is_superseded_is_stopped(world: World) -> None:
    """Nobody else may know of it: the newer request may have looked before it existed."""
    checks = iter([None, SupersededError("superseded")])

    def check() -> None:
        if error := next(checks, None):
            raise error

    request = jobs.Request(JOB, "request-1", check, absence_seconds=1)
    # The first read looks for an existing job.
    missing = times(1, refusal("ResourceNotFoundException", status=404), skip=1)
    late = Meddled(world.bedrock, before={"get_model_customization_job": missing})
    with pytest.raises(SupersededError):
        jobs.ensure(late, job_spec(job_properties()), request, allow_legacy=False)
    assert (world.count(CREATE), world.running()) == (1, [])
