"""A release waits for its job: progress, and reasons to end."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

from distilled_router.aws.state_machine import wait_if_transient
from distilled_router.bedrock import jobs, ownership
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, TRAINING_TAG, bedrock_tags
from distilled_router.bedrock.ownership import DROPPED_TAG, Claimant
from distilled_router.release.table import SUPERSEDED, WAITING
from tests.unit.candidate.polls import (
    CREATE,
    NAME,
    STOP,
    STOPPING,
    TWICE,
    claims_on,
    hashes,
    job_of,
    poll,
    tags,
)
from tests.unit.framework import STACK
from tests.unit.local.bedrock.scenes import HOUR, MINUTE, labelled, lines
from tests.unit.release_world import HOLDOUT_SHA256, JOB, OWNER, RELEASE, A, B, Proxy, World
from tests.unit.resource_scenes import INTERNAL


def test_running_job_is_awaited_and_its_phases_shown(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    assert poll(world) == {
        "outcome": "waiting",
        "message": "job InProgress: validation InProgress, data processing NotStarted, training NotStarted",
        "seconds": 300,
    }
    world.advance(10 * MINUTE)
    poll(world)
    assert world.release(A).state == WAITING
    assert "data processing InProgress" in world.release(A).message


def test_completed_job_gives_the_release_its_model(world: World) -> None:
    world.begin(A)
    model = world.train(A)
    assert poll(world)["outcome"] == "done"
    assert world.release(A).model_arn == model
    job = job_of(world)
    item = world.releases.table.get_item(Key={"id": world.releases.key(f"release@{A}")})["Item"]
    assert item is not None
    assert datetime.fromtimestamp(int(item["trained_at"]), UTC) == job["endTime"]


def test_failed_job_ends_the_release_with_bedrocks_reason(world: World) -> None:
    """Case B6."""
    world.begin(A)
    world.server.fault("job_failed", message="Unable to read the training data.")
    world.start_job(A)
    world.advance(HOUR)
    result = poll(world)
    assert result["outcome"] == "failed"
    assert "Failed (validation Failed" in result["message"]
    assert "Unable to read the training data." in result["message"]


def test_stopped_job_ends_the_release_and_is_not_paid_again(world: World) -> None:
    """Case B7."""
    world.begin(A)
    world.start_job(A)
    world.bedrock.stop_model_customization_job(jobIdentifier=NAME)
    assert "is Stopping" in poll(world, **TWICE, **STOPPING)["message"]
    world.advance(HOUR)
    result = poll(world, **TWICE, **STOPPING)
    assert (result["outcome"], "is Stopped" in result["message"]) == ("failed", True)
    assert "not by this release. It is not retried automatically" in result["message"]
    assert world.calls(CREATE) == 1


def test_release_without_a_job_says_what_to_deploy(world: World) -> None:
    world.begin(A)
    assert poll(world)["message"] == (
        f"job {NAME} does not exist; deploy the stack with its DistillationJob first"
    )


@pytest.mark.parametrize("digest", [A, B])
def test_release_that_ended_or_is_unknown_is_not_awaited(world: World, digest: str) -> None:
    world.begin(A)
    world.start_job(A)
    world.releases.transition(A, SUPERSEDED, "by another")
    assert poll(world, digest)["outcome"] == "failed"
    assert (world.releases.get(B), world.release(A).message) == (None, "by another")


def test_job_is_given_up_after_its_time_and_not_stopped(world: World) -> None:
    world.begin(A)
    world.server.fault("job_stalled")
    world.start_job(A)
    world.advance(121 * HOUR)
    assert "is still InProgress after 121 h" in poll(world)["message"]
    assert world.calls(STOP) == 0


def test_release_that_is_declared_again_waits_as_long_again(world: World) -> None:
    world.begin(A)
    world.server.fault("job_stalled")
    world.start_job(A)
    world.advance(121 * HOUR)
    world.begin(A, 2)
    assert poll(world)["outcome"] == "waiting"


def test_model_deleted_by_hand_is_reported_and_not_trained_again(world: World) -> None:
    """Case T4."""
    world.begin(A)
    world.bedrock.delete_custom_model(modelIdentifier=world.train(A))
    result = poll(world, **TWICE)
    assert result["outcome"] == "failed"
    assert f"the model of job {NAME}" in result["message"]
    assert "does not exist. It is not retried automatically: set another nonce" in result["message"]
    assert world.calls(CREATE) == 1


@pytest.mark.parametrize(("status", "outcome"), [("Creating", "waiting"), ("Failed", "failed")])
def test_model_that_is_not_active_is_not_deployed(world: World, status: str, outcome: str) -> None:
    world.begin(A)
    world.train(A)
    model = Mock(return_value={"modelStatus": status})
    assert poll(world, bedrock=Proxy(world.bedrock, get_custom_model=model))["outcome"] == outcome
    assert world.release(A).model_arn == ""


@pytest.fixture
def model(world: World) -> str:
    world.begin(A)
    return world.train(A)


def retag(world: World, **changed: str) -> None:
    """Change the job's tags as its resource does."""
    world.bedrock.tag_resource(resourceARN=job_of(world)["jobArn"], tags=bedrock_tags(changed))


def test_the_model_gets_its_jobs_present_tags(world: World, model: str) -> None:
    """Case T5."""
    world.bedrock.tag_resource(resourceARN=model, tags=bedrock_tags({"team": "old", "gone": "x"}))
    retag(world, team="search", cost="7")
    assert poll(world)["outcome"] == "done"
    assert tags(world, model) == {
        **{OWNER_TAG: OWNER, DIGEST_TAG: A, "team": "search", "cost": "7"},
        **hashes(world),
    }


def test_model_gets_the_claims_that_its_job_has_when_it_is_ready(world: World) -> None:
    """While the job ran, its construct got another logical id: the model's tags date from before."""
    renamed = Claimant(STACK, "RenamedJob")
    world.begin(A)
    job = jobs.find(world.bedrock, world.start_job(A))
    assert job
    ownership.claim(world.bedrock, job["jobArn"], renamed)
    jobs.disclaim(world.bedrock, job, JOB)
    world.advance(2 * HOUR)
    model = str(job_of(world)["outputModelArn"])
    assert JOB.key in claims_on(world, model)
    assert poll(world)["outcome"] == "done"
    assert claims_on(world, model).keys() == {renamed.key, RELEASE.key}
    assert not any(key.startswith(DROPPED_TAG) for key in ownership.read_tags(world.bedrock, model) or {})


def test_model_whose_jobs_resource_is_gone_stays_unclaimed(world: World, model: str) -> None:
    """Case B14: the model was retained."""
    found = jobs.find(world.bedrock, NAME)
    assert found
    jobs.disclaim(world.bedrock, found, JOB)
    assert poll(world)["outcome"] == "done"
    assert claims_on(world, model) == {}


def test_only_what_differs_is_written(world: World, model: str) -> None:
    retag(world, team="search")
    poll(world)
    [*_, call, claim] = world.server.calls("TagResource")
    assert call["parameters"]["tags"] == [{"key": "team", "value": "search"}]
    assert [tag["key"] for tag in claim["parameters"]["tags"]] == [RELEASE.key]
    assert world.calls("UntagResource") == 0


def test_equal_tags_are_not_written(world: World, model: str) -> None:
    world.claim(model)
    calls = world.calls("TagResource")
    assert poll(world)["outcome"] == "done"
    assert (world.calls("TagResource"), world.calls("UntagResource")) == (calls, 0)


def test_a_model_that_the_release_knows_keeps_what_was_put_on_it_since(world: World, model: str) -> None:
    poll(world)
    world.bedrock.tag_resource(resourceARN=model, tags=bedrock_tags({"keep": "yes"}))
    world.begin(A, 2)
    assert poll(world)["outcome"] == "done"
    assert tags(world, model)["keep"] == "yes"


def test_a_model_without_the_owners_tag_is_left_alone(world: World, model: str) -> None:
    """The role may not change its tags."""
    world.bedrock.untag_resource(resourceARN=model, tagKeys=[OWNER_TAG])
    retag(world, team="search")
    calls = world.calls("TagResource")
    assert poll(world)["outcome"] == "done"
    assert world.calls("TagResource") == calls


# Somebody else writes to the bucket


def test_hashes_of_the_data_set_come_with_the_model(world: World) -> None:
    world.begin(A)
    world.train(A)
    assert poll(world)["outcome"] == "done"
    assert world.release(A).holdout_sha256 == HOLDOUT_SHA256
    (job,) = world.bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"]
    tags = world.bedrock.list_tags_for_resource(resourceARN=job["jobArn"])["tags"]
    assert {"key": TRAINING_TAG, "value": world.release(A).training_sha256} in tags
    # That of the settings goes first.
    world.begin(A, attempt=2)
    assert world.release(A).holdout_sha256 == ""
    poll(world, holdout_sha256="f" * 64)
    assert world.release(A).holdout_sha256 == "f" * 64


def test_model_whose_training_file_was_replaced_meanwhile_is_not_deployed(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    world.server.s3.put_object(Bucket="data", Key=f"{NAME}.jsonl", Body=lines(labelled()[:110]))
    world.advance(2 * HOUR)
    result = wait_if_transient(lambda: poll(world), 60)
    assert result["outcome"] == "failed"
    assert result["message"].startswith(f"s3://data/{NAME}.jsonl was replaced after it was published")
    assert world.release(A).model_arn == ""


def test_failed_job_is_not_repeated_with_a_replaced_training_file(world: World) -> None:
    world.begin(A)
    world.server.fault("job_failed", message=INTERNAL)
    world.start_job(A)
    world.advance(HOUR)
    world.server.s3.put_object(Bucket="data", Key=f"{NAME}.jsonl", Body=b"other rows")
    result = wait_if_transient(lambda: poll(world, **TWICE), 60)
    assert (result["outcome"], world.calls(CREATE)) == ("failed", 1)
    assert "was replaced after it was published" in result["message"]
