"""Adopted jobs and models, managed elsewhere: a release uses them and changes nothing about them."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from distilled_router.release.table import FAILED
from tests.unit.candidate.polls import CREATE, STOP, STOPPING, TWICE, job_of, poll
from tests.unit.local.bedrock.scenes import HOUR, STUDENT
from tests.unit.release_world import OWNER, A, B, Proxy, World


def foreign_model(world: World) -> str:
    """Return a model of a foreign job."""
    world.start_job(B)
    job = job_of(world, f"{OWNER}-{B}")
    copied = ("roleArn", "customizationType", "customizationConfig", "trainingDataConfig", "outputDataConfig")
    world.bedrock.create_model_customization_job(
        jobName="a-team-s-job",
        customModelName="a-team-s-model",
        baseModelIdentifier=job["baseModelArn"],
        **{name: job[name] for name in copied},
    )
    world.bedrock.stop_model_customization_job(jobIdentifier=job["jobArn"])
    world.advance(2 * HOUR)
    return str(job_of(world, "a-team-s-job")["outputModelArn"])


def test_a_model_needs_no_job(world: World) -> None:
    model = world.train(B)
    world.begin(A, source=model)
    calls = world.calls("GetModelCustomizationJob")
    assert poll(world)["outcome"] == "done"
    assert world.release(A).model_arn == model
    assert world.calls("GetModelCustomizationJob") == calls


def test_a_model_that_does_not_exist_is_named(world: World) -> None:
    model = world.train(B)
    world.bedrock.delete_custom_model(modelIdentifier=model)
    world.begin(A, source=model)
    assert poll(world) == {
        "outcome": "failed",
        "message": f"model {model} does not exist. Use a model of this account and Region.",
        "seconds": 0,
    }


@pytest.mark.parametrize(("status", "outcome"), [("Creating", "waiting"), ("Failed", "failed")])
def test_a_model_must_be_active(world: World, status: str, outcome: str) -> None:
    world.begin(A, source="arn:aws:bedrock:us-east-1:000000000000:custom-model/x/1")
    model = Mock(return_value={"modelStatus": status, "failureMessage": "No capacity."})
    result = poll(world, bedrock=Proxy(world.bedrock, get_custom_model=model))
    assert (result["outcome"], f"is {status}" in result["message"]) == (outcome, True)
    assert world.release(A).model_arn == ""


def test_a_job_is_awaited_and_gives_its_model(world: World) -> None:
    world.start_job(B)
    job = job_of(world, f"{OWNER}-{B}")
    world.begin(A, source=job["jobArn"])
    assert poll(world)["message"].startswith("job InProgress: validation InProgress")
    world.advance(2 * HOUR)
    assert poll(world)["outcome"] == "done"
    job = job_of(world, job["jobArn"])
    assert world.release(A).model_arn == job["outputModelArn"]


def test_a_job_that_does_not_exist_is_named(world: World) -> None:
    arn = f"arn:aws:bedrock:us-east-1:000000000000:model-customization-job/{STUDENT}/0a1b2c3d4e5f"
    world.begin(A, source=arn)
    result = poll(world)
    assert (result["outcome"], f"job {arn} does not exist" in result["message"]) == ("failed", True)


def test_a_job_is_neither_stopped_nor_retried_nor_tagged(world: World) -> None:
    world.server.fault("job_stalled")
    world.start_job(B)
    stalled = job_of(world, f"{OWNER}-{B}")["jobArn"]
    world.begin(A, source=stalled)
    world.advance(49 * HOUR)
    assert poll(world, **STOPPING, **TWICE)["outcome"] == "waiting"
    world.server.fault("job_failed")
    world.start_job("c" * 12)
    world.advance(HOUR)
    broken = job_of(world, f"{OWNER}-{'c' * 12}")["jobArn"]
    world.begin(A, 2, source=broken)
    assert "internal error" in poll(world, **STOPPING, **TWICE)["message"]
    assert (world.calls(STOP), world.calls(CREATE)) == (0, 2)
    assert world.calls("TagResource") == world.calls("ListTagsForResource") == 0


def test_the_sweeper_never_deletes_an_adopted_model(world: World) -> None:
    """It deletes only models named after the owner and a digest, and this one has another name."""
    model = foreign_model(world)
    world.begin(A, source=model)
    assert poll(world)["outcome"] == "done"
    world.releases.transition(A, FAILED, "refused by the gate")
    world.begin(B)
    swept = world.sweeper(keep=0).sweep()
    assert (world.models(), swept.removed) == ({"a-team-s-model"}, [])
    world.sweeper(keep=0).clear()
    assert world.models() == {"a-team-s-model"}
    assert world.calls("DeleteCustomModel") == 0
