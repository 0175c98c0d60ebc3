"""A job that failed inside Bedrock is retried under a numbered name, and is deleted with its resource."""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.bedrock import jobs, ownership
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG
from tests.unit import framework
from tests.unit.release_world import Proxy
from tests.unit.resource_scenes import (
    CREATE,
    DIGEST,
    HOUR,
    INTERNAL,
    KEY,
    NAME,
    NEXT,
    OWNER,
    ROLE_ERROR,
    STOP,
    Meddled,
    World,
    job_properties,
    refusal,
    spec,
    unclaimed,
)


def jobs_of(world: World) -> list[dict[str, Any]]:
    """Return the records of all jobs of the account."""
    found: list[dict[str, Any]] = world.server.state()["jobs"]
    return found


SECOND, THIRD = f"{NAME}-2", f"{NAME}-3"


@pytest.mark.parametrize(
    ("status", "message", "internal"),
    [
        ("Failed", INTERNAL, True),
        ("Failed", "The job met an Internal Error.", True),
        ("Failed", "Could not validate GetObject permissions.", False),
        ("Failed", None, False),
        ("Stopped", INTERNAL, False),
        ("Completed", None, False),
    ],
)
def test_internal_failures_are_distinguished_from_invalid_requests(
    status: str, message: str | None, internal: bool
) -> None:
    """Case B6."""
    job = {"status": status, **({"failureMessage": message} if message else {})}
    assert jobs.failed_internally(job) is internal


def test_attempts_are_found_in_order_and_the_latest_is_the_last(world: World) -> None:
    assert jobs.attempts(world.bedrock, NAME) == []
    assert jobs.latest(world.bedrock, NAME) is None
    first = world.failed_job()
    jobs.retry(world.bedrock, first, 2)
    world.bedrock.create_model_customization_job(
        **{**spec(NEXT).request(), "jobName": f"{NAME}-4", "customModelName": "other"}
    )

    assert [job["jobName"] for job in jobs.attempts(world.bedrock, NAME)] == [NAME, SECOND]
    latest = jobs.latest(world.bedrock, NAME)
    assert latest
    assert latest["jobName"] == SECOND


def test_no_more_than_nine_attempts_are_searched(world: World) -> None:
    found: dict[str, Any] = {"jobArn": "arn", "status": "Failed"}
    looks: list[str] = []

    class Endless:
        """An account in which a job of any name exists."""

        def get_model_customization_job(self, jobIdentifier: str) -> dict[str, Any]:  # noqa: N803 - the API's
            looks.append(jobIdentifier)
            return found

    assert len(jobs.attempts(Endless(), NAME)) == 9
    assert looks[-1] == f"{NAME}-9"


def test_another_attempt_is_the_same_request_under_the_next_name(world: World) -> None:
    world.server.fault("job_failed")
    options = job_properties(
        CustomModelKmsKeyId=KEY,
        ValidationDataUris=["s3://data/other.jsonl"],
        SubnetIds=["subnet-1"],
        SecurityGroupIds=["sg-1"],
    )
    world.jobs().send(framework.create(options))
    world.server.advance(HOUR)
    first = world.described()
    assert jobs.failed_internally(first)

    arn = jobs.retry(world.bedrock, first, 2)

    one, two = (call["parameters"] for call in world.server.calls(CREATE))
    assert world.job(SECOND)["arn"] == arn
    own = {"jobName": SECOND, "customModelName": SECOND, "clientRequestToken": two["clientRequestToken"]}
    base = {"baseModelIdentifier": first["baseModelArn"]}
    # Tags are listed in any order.
    assert two == {**one, **own, **base, "jobTags": two["jobTags"], "customModelTags": two["jobTags"]}
    assert two["clientRequestToken"] != one["clientRequestToken"]
    assert world.job(SECOND)["tags"] == world.job(NAME)["tags"]


def test_attempt_whose_response_is_lost_and_whose_tags_are_seen_late_is_ours(world: World) -> None:
    first = world.failed_job()
    world.server.fault("lost_response", operation=CREATE)
    real, late = world.bedrock.list_tags_for_resource, [SECOND]

    def tags(**parameters: Any) -> Any:
        if any(job["name"] in late and job["arn"] == parameters["resourceARN"] for job in jobs_of(world)):
            raise refusal("ResourceNotFoundException")
        return real(**parameters)

    assert jobs.retry(Proxy(world.bedrock, list_tags_for_resource=tags), first, 2) == world.job(SECOND)["arn"]
    assert world.running() == [SECOND]


def test_another_attempt_at_fine_tuning_keeps_its_hyperparameters(world: World) -> None:
    tuning: dict[str, Any] = {"CustomizationType": "FINE_TUNING", "TeacherModelIdentifier": None}
    length: dict[str, Any] = {"MaxResponseLengthForInference": None, "HyperParameters": {"epochCount": "2"}}
    world.server.fault("job_failed")
    world.jobs().send(framework.create(job_properties(**tuning, **length)))
    world.server.advance(HOUR)

    jobs.retry(world.bedrock, world.described(), 2)

    request = world.server.calls(CREATE)[-1]["parameters"]
    assert request["hyperParameters"] == {"epochCount": "2"}
    assert "customizationConfig" not in request


def test_distillation_is_retried_without_hyperparameters_that_it_shows(world: World) -> None:
    shown = {**world.failed_job(), "hyperParameters": {"epochCount": "2"}}

    jobs.retry(world.bedrock, shown, 2)

    assert "hyperParameters" not in world.server.calls(CREATE)[-1]["parameters"]


def test_the_same_attempt_asked_for_twice_is_one_job(world: World) -> None:
    """Case B1."""
    first = world.failed_job()

    assert jobs.retry(world.bedrock, first, 2) == jobs.retry(world.bedrock, first, 2)
    assert world.count(CREATE) == 2


def test_a_lost_answer_to_another_attempt_is_found_by_its_name(world: World) -> None:
    """Case B12."""
    first = world.failed_job()
    world.server.fault("lost_response", operation=CREATE)

    arn = jobs.retry(world.bedrock, first, 2)

    assert arn == world.job(SECOND)["arn"]


def test_a_third_attempt_follows_the_second(world: World) -> None:
    world.server.fault("job_failed", count=2)
    world.jobs().send(framework.create(job_properties()))
    world.server.advance(HOUR)
    jobs.retry(world.bedrock, world.described(), 2)
    world.server.advance(HOUR)

    jobs.retry(world.bedrock, world.described(SECOND), 3)

    assert world.job(THIRD)["tags"] == world.job(NAME)["tags"]
    world.server.advance(3 * HOUR)
    assert world.job(THIRD)["status"] == "Completed"


def test_another_attempt_may_have_to_wait_for_its_role(world: World) -> None:
    """Case B2."""
    first = world.failed_job()
    world.server.fault("validation", operation=CREATE, message=ROLE_ERROR)

    with pytest.raises(NotYetError, match="Could not assume"):
        jobs.retry(world.bedrock, first, 2)
    jobs.retry(world.bedrock, first, 2)


def test_another_attempt_is_refused_with_the_quota(world: World) -> None:
    """Case B16."""
    first = world.failed_job()
    world.server.fault("over_quota", operation=CREATE, message="You have 2 jobs in progress.")

    with pytest.raises(ResourceError, match=r"You have 2 jobs in progress.*quotas of customization jobs"):
        jobs.retry(world.bedrock, first, 2)


def test_an_attempts_name_in_foreign_hands_is_refused(world: World) -> None:
    """Case B5."""
    first = world.failed_job()
    world.foreign_job(SECOND)

    with pytest.raises(ResourceError, match="does not belong to this stack"):
        jobs.retry(world.bedrock, first, 2)
    assert world.count(CREATE) == 2


def test_a_foreign_job_is_never_retried(world: World) -> None:
    """Case B5."""
    world.foreign_job()

    with pytest.raises(ResourceError, match="lacks the tag"):
        jobs.retry(world.bedrock, world.described(), 2)
    assert world.count(CREATE) == 1


@pytest.mark.parametrize("attempt", [0, 10])
def test_there_is_no_tenth_attempt(world: World, attempt: int) -> None:
    with pytest.raises(ValueError, match="attempts 1 to 9"):
        jobs.retry(world.bedrock, world.failed_job(), attempt)


def test_an_update_returns_the_latest_attempt(world: World) -> None:
    jobs.retry(world.bedrock, world.failed_job(), 2)
    world.server.advance(3 * HOUR)

    response = world.jobs().send(framework.update(NAME, job_properties(), job_properties()))

    assert response.physical_id == NAME
    assert (response.data["JobName"], response.data["Status"]) == (SECOND, "Completed")
    assert response.data["ModelArn"] == world.job(SECOND)["model"]


def test_tags_follow_on_every_attempt_and_its_model(world: World) -> None:
    """Case T5."""
    jobs.retry(world.bedrock, world.failed_job(), 2)
    world.server.advance(3 * HOUR)
    new = job_properties(Tags={OWNER_TAG: OWNER, DIGEST_TAG: DIGEST, "cost": "7"})

    world.jobs().send(framework.update(NAME, new, job_properties()))

    (model,) = world.server.state()["models"]
    for found in (world.job(), world.job(SECOND), model):
        assert unclaimed(found["tags"]) == new["Tags"]


def test_delete_stops_the_attempt_that_runs(world: World) -> None:
    """Case B8."""
    jobs.retry(world.bedrock, world.failed_job(), 2)

    response = world.jobs().send(framework.delete(NAME, job_properties()))

    assert response.succeeded
    assert world.job(SECOND)["status"] == "Stopped"
    assert world.running() == []


@pytest.mark.parametrize(("retain", "left"), [("true", 1), ("false", 0)])
def test_delete_takes_the_model_that_an_attempt_created(world: World, retain: str, left: int) -> None:
    """Case B15."""
    jobs.retry(world.bedrock, world.failed_job(), 2)
    world.server.advance(3 * HOUR)

    assert world.jobs().send(framework.delete(NAME, job_properties(RetainModel=retain))).succeeded
    assert len(world.server.state()["models"]) == left


def test_delete_leaves_the_model_of_an_attempt_that_serves(world: World) -> None:
    """Case B13."""
    jobs.retry(world.bedrock, world.failed_job(), 2)
    world.server.advance(3 * HOUR)
    model = str(world.job(SECOND)["model"])
    world.deploy(model)

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert len(world.server.state()["models"]) == 1
    # Only the release that uses the model keeps it; once the job is declared again, its resource owns it.
    assert not ownership.claims(world.tags(model))
    assert world.jobs().send(framework.create(job_properties())).succeeded
    assert ownership.claims(world.tags(model))


def test_delete_leaves_a_foreign_job_with_an_attempts_name(world: World) -> None:
    world.failed_job()
    world.foreign_job(SECOND)

    assert world.jobs().send(framework.delete(NAME, job_properties())).succeeded
    assert world.running() == [SECOND]
    assert world.count(STOP) == 0


def test_an_update_that_is_rolled_back_stops_all_attempts_of_its_job(world: World) -> None:
    """Case B14."""
    world.jobs().send(framework.create(job_properties()))
    world.server.fault("job_failed")
    world.jobs().send(framework.update(NAME, job_properties(NEXT), job_properties()))
    world.server.advance(HOUR)
    jobs.retry(world.bedrock, world.described(f"{OWNER}-{NEXT}"), 2)

    world.jobs().send(framework.update(NAME, job_properties(), job_properties(NEXT)))
    world.server.advance(HOUR)

    assert world.job(f"{OWNER}-{NEXT}-2")["status"] == "Stopped"


def test_a_deleted_job_is_not_retried_by_a_release_that_has_not_heard(world: World) -> None:
    # The job's stack drops the job before the release's stack ends the release that waits for it.
    first = world.failed_job()
    world.jobs().send(framework.delete(NAME, job_properties()))

    with pytest.raises(ResourceError, match="was deleted from its stack"):
        jobs.retry(world.bedrock, first, 2)
    assert world.running() == []


def test_a_deleted_second_attempt_is_not_followed_by_a_third(world: World) -> None:
    world.server.fault("job_failed", count=2)
    world.jobs().send(framework.create(job_properties()))
    world.server.advance(HOUR)
    jobs.retry(world.bedrock, world.described(), 2)
    world.server.advance(HOUR)
    second = world.described(SECOND)
    world.jobs().send(framework.delete(NAME, job_properties()))

    with pytest.raises(ResourceError, match="was deleted from its stack"):
        jobs.retry(world.bedrock, second, 3)


def test_a_job_that_is_declared_again_may_be_retried(world: World) -> None:
    first = world.failed_job()
    world.jobs().send(framework.delete(NAME, job_properties()))

    assert world.jobs().send(framework.create(job_properties())).data["Status"] == "Failed"

    jobs.retry(world.bedrock, first, 2)
    assert world.running() == [SECOND]
    assert unclaimed(world.job(SECOND)["tags"]) == job_properties()["Tags"]


def test_an_attempt_that_completes_before_the_stop_loses_its_model(world: World) -> None:
    """Case B9."""
    jobs.retry(world.bedrock, world.failed_job(), 2)
    hooks = {"stop_model_customization_job": lambda: world.server.advance(3 * HOUR)}

    response = world.jobs(Meddled(world.bedrock, before=hooks)).send(framework.delete(NAME, job_properties()))

    assert response.succeeded
    assert world.job(SECOND)["status"] == "Completed"
    assert world.server.state()["models"] == []
