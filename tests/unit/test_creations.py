"""Whatever costs says from its creation whose it is: the tags of each create call of each entry point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG
from distilled_router.bedrock.ownership import REQUEST_TAG, claims
from tests.unit.distilled_router.aws.throttling_scenes import SCENES
from tests.unit.entry_points import SETTINGS, Theatre
from tests.unit.framework import STACK
from tests.unit.resource_scenes import job_properties

JOB, DEPLOYMENT = "CreateModelCustomizationJob", "CreateCustomModelDeployment"
THROUGHPUT, BATCH = "CreateProvisionedModelThroughput", "CreateModelInvocationJob"
EVALUATION = "CreateEvaluationJob"
# The logical ids of the custom resources behind the framework, and of the steps' variables.
SENT, SET = "JobResource5F6E7A8B", SETTINGS["LOGICAL_ID"]
CREATIONS = {
    "a job is made": (JOB, SENT),
    "a job is replaced": (JOB, SENT),
    "a job is made from labels": (JOB, SET),
    "a release makes its job again": (JOB, SENT),
    "throughput is bought": (THROUGHPUT, SENT),
    "throughput is replaced": (THROUGHPUT, SENT),
    "a release buys throughput": (THROUGHPUT, SET),
    "a release gets its deployment": (DEPLOYMENT, SET),
    "a judge grades a release": (EVALUATION, SET),
    "a shard is labelled": (BATCH, SET),
}
# A deployment that buys throughput knows the model by its ARN only.
WITHOUT_DIGEST = {"throughput is bought", "throughput is replaced"}


def tags_of(call: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the tags in a call, those of a job and of its model."""
    for name in ("tags", "jobTags", "customModelTags"):
        if name in call["parameters"]:
            yield {tag["key"]: tag["value"] for tag in call["parameters"][name]}


@pytest.mark.parametrize("name", CREATIONS)
def test_create_call_names_owner_resource_digest_and_request(theatre: Theatre, name: str) -> None:
    operation, logical_id = CREATIONS[name]
    with theatre.play(SCENES[name].prepare) as play:
        began = len(theatre.server.calls())
        assert SCENES[name].ask(play)
        calls = [call for call in theatre.server.calls()[began:] if call["operation"] == operation]
    found = [tags for call in calls for tags in tags_of(call)]
    assert len(found) == len(calls) * (2 if operation == JOB else 1) > 0
    for tags in found:
        assert list(claims(tags).values()) == [f"{STACK} {logical_id}"]
        required = {OWNER_TAG, REQUEST_TAG, *(() if name in WITHOUT_DIGEST else (DIGEST_TAG,))}
        assert required <= tags.keys()


def test_job_is_not_created_for_an_execution_that_was_stopped(theatre: Theatre) -> None:
    """The labelling's resource stops it, and then the job's resource finds no job to stop."""
    with theatre.play() as play:
        machine = play.world.machine
        begun = play.world.stepfunctions.start_execution(stateMachineArn=machine, name="labelling")
        play.world.stepfunctions.stop_execution(executionArn=begun["executionArn"])
        event = {"properties": job_properties(MadeLater="true"), "execution": begun["executionArn"]}
        assert play.call("distillation_job.create_job", event)["outcome"] == "failed"
        assert theatre.server.calls(JOB) == []


def test_each_kind_of_creation_has_its_scene() -> None:
    assert {operation for operation, _ in CREATIONS.values()} == {
        JOB, DEPLOYMENT, THROUGHPUT, BATCH, EVALUATION
    }  # fmt: skip
