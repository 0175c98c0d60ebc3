"""Reads that lag behind writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.bedrock import BedrockStandIn, Lag, ManualClock, Settings
from local.bedrock.__main__ import arguments
from tests.unit.local.bedrock.scenes import HOUR, MINUTE, Scene, conflict, invalid, refused
from tests.unit.local.bedrock.test_bedrock_batch import create as create_batch
from tests.unit.local.bedrock.test_bedrock_batch import records
from tests.unit.local.bedrock.test_bedrock_evaluations import create as create_evaluation
from tests.unit.local.bedrock.test_bedrock_faults import control

missing = partial(refused, "ResourceNotFoundException")


def tags_of(scene: Scene, arn: str) -> dict[str, str]:
    found = scene.control.list_tags_for_resource(resourceARN=arn)["tags"]
    return {tag["key"]: tag["value"] for tag in found}


def names(scene: Scene) -> list[str]:
    found = scene.control.list_model_customization_jobs()["modelCustomizationJobSummaries"]
    return [job["jobName"] for job in found]


KINDS: dict[str, tuple[Callable[[Scene], str], str, str]] = {
    "job": (Scene.create_job, "model_customization_job", "jobIdentifier"),
    "model": (Scene.train, "custom_model", "modelIdentifier"),
    "deployment": (
        lambda scene: scene.deploy(scene.train(), wait=False),
        "custom_model_deployment",
        "customModelDeploymentIdentifier",
    ),
    "throughput": (
        lambda scene: scene.provision(scene.train(), wait=False),
        "provisioned_model_throughput",
        "provisionedModelId",
    ),
    "batch": (lambda scene: create_batch(scene, records()), "model_invocation_job", "jobIdentifier"),
    "evaluation": (create_evaluation, "evaluation_job", "jobIdentifier"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_new_resource_is_found_and_listed_late(scene: Scene, kind: str) -> None:
    """The lag of Get and that of List are independent."""
    create, name, identifier = KINDS[kind]
    arn = create(scene)
    get = getattr(scene.control, f"get_{name}")
    plural = {"provisioned_model_throughput": "provisioned_model_throughputs"}.get(name, f"{name}s")
    listed = getattr(scene.control, f"list_{plural}")
    summaries = next(key for key in listed() if key.lower().endswith("summaries"))
    created = scene.job()["endTime"].timestamp() if kind == "model" else scene.bedrock.clock.now()
    age = scene.bedrock.clock.now() - created

    scene.bedrock.lag(get_seconds=age + 60)
    scene.advance(59)
    with missing("was not found"):
        get(**{identifier: arn})
    assert len(listed()[summaries]) == 1
    scene.advance(1)
    get(**{identifier: arn})

    scene.bedrock.lag(get_seconds=0, list_seconds=age + 120)
    assert listed()[summaries] == []
    get(**{identifier: arn})
    scene.advance(60)
    assert len(listed()[summaries]) == 1


def test_writes_do_not_lag(scene: Scene) -> None:
    scene.bedrock.lag(get_seconds=HOUR, list_seconds=HOUR)
    scene.create_job()
    with conflict("job name is currently in use"):
        scene.create_job()
    scene.advance(2 * HOUR)
    model = str(scene.job()["outputModelArn"])
    scene.deploy(model, wait=False)
    with missing():
        scene.control.get_custom_model_deployment(customModelDeploymentIdentifier="endpoint")
    with invalid("currently in use"):
        scene.deploy(model, wait=False)
    scene.provision(model)
    scene.control.delete_provisioned_model_throughput(provisionedModelId="units")
    assert scene.bedrock.state()["throughput"] == []


def test_delete_and_stop_do_not_find_a_new_resource_if_so_set(scene: Scene) -> None:
    scene.bedrock.lag(delete_seconds=60)
    scene.create_job()
    with missing():
        scene.control.stop_model_customization_job(jobIdentifier="job")
    assert scene.job()["status"] == "InProgress"
    scene.advance(2 * HOUR)
    units = scene.provision(str(scene.job()["outputModelArn"]), wait=False)
    with missing():
        scene.control.delete_provisioned_model_throughput(provisionedModelId=units)
    scene.advance(60)
    scene.control.delete_provisioned_model_throughput(provisionedModelId=units)


def test_changes_of_tags_are_seen_late(scene: Scene) -> None:
    scene.bedrock.lag(tags_seconds=60)
    job = scene.create_job(jobTags=[{"key": "owner", "value": "first"}])
    assert tags_of(scene, job) == {}
    scene.advance(60)
    assert tags_of(scene, job) == {"owner": "first"}

    scene.control.tag_resource(resourceARN=job, tags=[{"key": "owner", "value": "second"}])
    scene.advance(30)
    scene.control.untag_resource(resourceARN=job, tagKeys=["owner"])
    assert tags_of(scene, job) == {"owner": "first"}
    assert scene.bedrock.state()["jobs"][0]["tags"] == {}
    scene.advance(30)
    assert tags_of(scene, job) == {"owner": "second"}
    scene.advance(30)
    assert tags_of(scene, job) == {}


def test_new_status_is_seen_late(scene: Scene) -> None:
    scene.bedrock.lag(status_seconds=60)
    scene.create_job()
    scene.control.stop_model_customization_job(jobIdentifier="job")
    assert scene.job()["status"] == "InProgress"
    assert scene.bedrock.state()["jobs"][0]["status"] == "Stopping"
    scene.advance(60)
    assert scene.job()["status"] == "Stopping"
    scene.advance(60)
    # It stopped two minutes after the request.
    assert scene.job()["status"] == "Stopping"
    scene.advance(60)
    assert scene.job()["status"] == "Stopped"


def test_found_resource_is_missing_in_the_next_reads(scene: Scene) -> None:
    scene.bedrock.lag(misses=2)
    scene.create_job()
    scene.job()
    for _ in range(2):
        with missing():
            scene.job()
    scene.job()
    scene.create_job("other")
    scene.job("other")
    with missing():
        scene.job("other")


def test_lag_is_set_over_http_and_reset(scene: Scene) -> None:
    assert control(scene, "GET", "/_lag")[1] == Lag().shown()
    assert control(scene, "POST", "/_lag", {"get_seconds": 60})[0] == 200
    status, lag = control(scene, "POST", "/_lag", {"misses": 1})
    assert (status, lag) == (200, {**Lag().shown(), "get_seconds": 60, "misses": 1})
    scene.create_job()
    with missing():
        scene.job()
    assert control(scene, "DELETE", "/_lag")[1] == Lag().shown()
    scene.job()
    control(scene, "POST", "/_lag", {"list_seconds": 60})
    assert names(scene) == []
    scene.bedrock.reset()
    assert control(scene, "GET", "/_lag")[1] == Lag().shown()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"seconds": 1}, "the lag has get_seconds"),
        ({"get_seconds": -1}, "get_seconds must be a number from 0"),
        ({"list_seconds": "1"}, "list_seconds must be a number from 0"),
        ({"misses": 1.5}, "misses must be a whole number from 0"),
        ({"misses": True}, "misses must be a whole number from 0"),
        ([], "must be a JSON object"),
    ],
)
def test_invalid_lag_is_refused(scene: Scene, given: Any, text: str) -> None:
    status, answer = control(scene, "POST", "/_lag", given)
    assert (status, text in answer["message"]) == (400, True), answer


def test_lag_can_be_set_at_the_start() -> None:
    lag = arguments(["--lag", '{"list_seconds": 60}']).lag
    assert lag == Lag(list_seconds=60)
    with BedrockStandIn(clock=ManualClock(), settings=Settings(lag=lag)) as bedrock:
        scene = Scene(bedrock)
        scene.create_job()
        assert names(scene) == []
        bedrock.lag(list_seconds=0)
        assert names(scene) == ["job"]
        bedrock.reset()
        scene.create_job()
        assert names(scene) == []


def test_unknown_resource_is_not_found_in_the_words_of_the_service(scene: Scene) -> None:
    with pytest.raises(ClientError, match="The specified resource Amazon Resource Name"):
        scene.job("unknown")
    with missing("The provided batch inference job was not found."):
        scene.control.get_model_invocation_job(jobIdentifier="aaaaaaaaaaaa")


def test_tags_are_read_of_a_resource_that_get_does_not_find(scene: Scene) -> None:
    scene.bedrock.lag(get_seconds=MINUTE)
    job = scene.create_job(jobTags=[{"key": "owner", "value": "me"}])
    assert tags_of(scene, job) == {"owner": "me"}
