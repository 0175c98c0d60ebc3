"""The release's first steps: the job is watched, and its model gets an endpoint once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

import candidate.handler
from candidate.handler import deploy_candidate, watch
from shared.naming import DIGEST_TAG, OWNER_TAG
from shared.releases import DEPLOYING, FAILED, SUPERSEDED, WAITING
from shared.stages import StageResult
from tests.unit.bedrock.scenes import HOUR, MINUTE
from tests.unit.release.conftest import OWNER, A, B, Proxy, World, named

SETTINGS = {
    "NAME": OWNER,
    "POLL_SECONDS": "300",
    "TIMEOUT_HOURS": "120",
    "STALL_HOURS": "48",
    "TAGS": json.dumps({"team": "search"}),
}
NAME = f"{OWNER}-{A}"
Capture = pytest.CaptureFixture[str]


def look(world: World, digest: str = A, **clients: Any) -> StageResult:
    bedrock = clients.get("bedrock", world.bedrock)
    return watch(digest, bedrock, world.releases, SETTINGS, now=world.now)


def deploy(world: World, digest: str = A, **clients: Any) -> StageResult:
    bedrock = clients.get("bedrock", world.bedrock)
    return deploy_candidate(digest, bedrock, world.releases, SETTINGS)


def ready(world: World, digest: str = A, attempt: int = 1) -> None:
    """A release whose job has made its model."""
    model = world.train(digest)
    world.begin(digest, attempt, model_arn=model)


def metrics(capture: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capture.readouterr().out.splitlines() if "_aws" in line]


def test_running_job_is_waited_for_and_its_phases_shown(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    assert look(world) == {
        "outcome": "waiting",
        "message": "job InProgress: validation InProgress, data processing NotStarted, training NotStarted",
        "seconds": 300,
    }
    world.advance(10 * MINUTE)
    look(world)
    assert world.release(A).state == WAITING
    assert "data processing InProgress" in world.release(A).message


def test_completed_job_gives_the_release_its_model(world: World) -> None:
    world.begin(A)
    model = world.train(A)
    assert look(world)["outcome"] == "done"
    assert world.release(A).model_arn == model
    job = world.bedrock.get_model_customization_job(jobIdentifier=NAME)
    item = world.releases._item(f"release@{A}")
    assert item is not None
    assert datetime.fromtimestamp(int(item["trained_at"]), UTC) == job["endTime"]


def test_b6_failed_job_ends_the_release_with_bedrocks_reason(world: World) -> None:
    world.begin(A)
    world.server.fault("job_failed", message="Unable to read the training data.")
    world.start_job(A)
    world.advance(HOUR)
    result = look(world)
    assert result["outcome"] == "failed"
    assert "Failed (validation Failed" in result["message"]
    assert "Unable to read the training data." in result["message"]


def test_b7_stopped_job_ends_the_release_and_is_not_paid_again(world: World) -> None:
    world.begin(A)
    world.start_job(A)
    world.bedrock.stop_model_customization_job(jobIdentifier=NAME)
    assert "is Stopping" in look(world)["message"]
    world.advance(HOUR)
    result = look(world)
    assert (result["outcome"], "is Stopped" in result["message"]) == ("failed", True)
    assert world.calls("CreateModelCustomizationJob") == 1


def test_release_without_a_job_says_what_to_deploy(world: World) -> None:
    world.begin(A)
    assert look(world)["message"] == f"job {NAME} does not exist; deploy the Distillation stack first"


@pytest.mark.parametrize("digest", [A, B])
def test_release_that_ended_or_is_unknown_is_not_waited_for(world: World, digest: str) -> None:
    world.begin(A)
    world.start_job(A)
    world.releases.transition(A, SUPERSEDED, "by another")
    assert look(world, digest)["outcome"] == "failed"
    assert (world.releases.get(B), world.release(A).message) == (None, "by another")


def test_stalled_job_is_reported_on_every_look_and_goes_on(world: World, capsys: Capture) -> None:
    world.begin(A)
    world.server.fault("job_stalled")
    world.start_job(A)
    world.advance(47 * HOUR)
    look(world)
    assert metrics(capsys) == []
    world.advance(2 * HOUR)
    assert [look(world)["outcome"], look(world)["outcome"]] == ["waiting", "waiting"]
    stalled = metrics(capsys)
    assert [(metric["StalledJobs"], metric["service"]) for metric in stalled] == [([1.0], OWNER)] * 2
    assert stalled[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "DistilledRouter"


def test_job_that_works_for_long_is_not_stalled(world: World, capsys: Capture) -> None:
    world.begin(A)
    world.start_job(A)
    watch(A, world.bedrock, world.releases, SETTINGS, now=world.now + 50 * HOUR)
    assert metrics(capsys) == []


def test_job_is_given_up_after_its_time_and_not_stopped(world: World) -> None:
    world.begin(A)
    world.server.fault("job_stalled")
    world.start_job(A)
    world.advance(121 * HOUR)
    assert "is still InProgress after 121 h" in look(world)["message"]
    assert world.calls("StopModelCustomizationJob") == 0


def test_release_that_is_declared_again_waits_as_long_again(world: World) -> None:
    world.begin(A)
    world.server.fault("job_stalled")
    world.start_job(A)
    world.advance(121 * HOUR)
    world.begin(A, 2)
    assert look(world)["outcome"] == "waiting"


def test_t4_model_deleted_by_hand_is_reported_and_not_trained_again(world: World) -> None:
    world.begin(A)
    world.bedrock.delete_custom_model(modelIdentifier=world.train(A))
    result = look(world)
    assert result["outcome"] == "failed"
    assert "does not exist any more" in result["message"]
    assert "set distillation.nonce" in result["message"]
    assert world.calls("CreateModelCustomizationJob") == 1


@pytest.mark.parametrize(("status", "outcome"), [("Creating", "waiting"), ("Failed", "failed")])
def test_model_that_is_not_active_is_not_deployed(world: World, status: str, outcome: str) -> None:
    world.begin(A)
    world.train(A)
    model = Mock(return_value={"modelStatus": status})
    assert look(world, bedrock=Proxy(world.bedrock, get_custom_model=model))["outcome"] == outcome
    assert world.release(A).model_arn == ""


def test_b30_deployment_is_made_once_and_waited_for(world: World) -> None:
    ready(world)
    first, second = deploy(world), deploy(world)
    assert first == second == {
        "outcome": "waiting", "message": f"deployment {NAME} is Creating", "seconds": 300
    }  # fmt: skip
    assert world.calls("CreateCustomModelDeployment") == 1
    assert (world.release(A).state, world.release(A).endpoint) == (DEPLOYING, "")
    world.advance(10 * MINUTE)
    assert deploy(world)["outcome"] == "done"
    endpoint = world.release(A).endpoint
    assert ":custom-model-deployment/" in endpoint
    tags = world.bedrock.list_tags_for_resource(resourceARN=endpoint)["tags"]
    assert {tag["key"]: tag["value"] for tag in tags} == {
        "team": "search",
        OWNER_TAG: OWNER,
        DIGEST_TAG: A,
    }


def test_b31_failed_deployment_ends_the_release_with_bedrocks_reason(world: World) -> None:
    ready(world)
    world.server.fault("deployment_failed", message="No capacity.")
    deploy(world)
    world.advance(10 * MINUTE)
    assert deploy(world) == {
        "outcome": "failed",
        "message": f"deployment {NAME} failed: No capacity.",
        "seconds": 0,
    }


def test_b35_deployment_of_the_name_that_is_not_ours_is_left_alone(world: World) -> None:
    ready(world)
    world.deploy_as(NAME, world.release(A).model_arn, owner=None)
    result = deploy(world)
    assert (result["outcome"], "is not this release's" in result["message"]) == ("failed", True)
    assert world.deployments() == named(A)


def test_b16_quota_ends_the_release_with_bedrocks_text(world: World) -> None:
    ready(world)
    world.server.fault("over_quota", operation="CreateCustomModelDeployment")
    assert "ServiceQuotaExceededException" in deploy(world)["message"]


def test_lost_answer_of_the_create_makes_no_second_deployment(world: World) -> None:
    ready(world)
    world.server.fault("lost_response", operation="CreateCustomModelDeployment", answer="error")
    assert deploy(world)["outcome"] == "waiting"
    assert world.deployments() == named(A)


def test_superseded_release_gets_no_deployment(world: World) -> None:
    ready(world)
    world.releases.transition(A, SUPERSEDED, "by another")
    assert deploy(world)["outcome"] == "failed"
    assert world.calls("CreateCustomModelDeployment") == 0


def test_release_that_is_superseded_while_its_deployment_is_made_ends(world: World) -> None:
    ready(world)

    def create(**parameters: Any) -> Any:
        world.releases.transition(A, SUPERSEDED, "by another")
        return world.bedrock.create_custom_model_deployment(**parameters)

    result = deploy(world, bedrock=Proxy(world.bedrock, create_custom_model_deployment=create))
    assert result["outcome"] == "failed"
    assert (world.release(A).state, world.release(A).endpoint) == (SUPERSEDED, "")


def again(world: World) -> None:
    """The first attempt's deployment is removed, as the sweeper does."""
    deploy(world)
    world.advance(10 * MINUTE)
    deploy(world)
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=NAME)
    world.releases.transition(A, FAILED, "refused by the gate")


def test_second_attempt_makes_a_new_deployment(world: World) -> None:
    """A token that Bedrock has seen makes nothing, and is no error."""
    ready(world)
    again(world)
    world.begin(A, 2)
    assert deploy(world)["outcome"] == "waiting"
    assert world.deployments() == named(A)


def test_first_attempt_of_a_new_life_makes_a_new_deployment(world: World) -> None:
    """The stack was destroyed and deployed again: attempts are counted from 1, the model was kept."""
    ready(world)
    again(world)
    model = world.release(A).model_arn
    world.releases._table.delete_item(Key={"id": f"release@{A}"})
    world.releases.begin(A, attempt=1, execution=world.execution(A), request_id="another stack's")
    world.releases.update(A, model_arn=model)
    assert deploy(world)["outcome"] == "waiting"
    assert world.deployments() == named(A)


def test_deployment_that_somebody_removes_meanwhile_ends_the_release(world: World) -> None:
    ready(world)
    deploy(world)
    world.advance(10 * MINUTE)
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=NAME)
    assert "was made and is gone again" in deploy(world)["message"]


def test_throttled_create_is_asked_again_and_makes_one_deployment(world: World) -> None:
    ready(world)
    world.server.fault("throttled", operation="CreateCustomModelDeployment")
    assert (deploy(world)["outcome"], world.release(A).state) == ("waiting", WAITING)
    assert deploy(world)["message"] == f"deployment {NAME} is Creating"
    assert world.deployments() == named(A)


def test_call_that_would_succeed_later_ends_no_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(world)
    for name, value in {**SETTINGS, "TABLE_NAME": "releases"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(candidate.handler, "client", lambda _: world.bedrock)
    monkeypatch.setattr(candidate.handler, "table", lambda _: world.releases._table)
    for entry, operation in (
        (candidate.handler.watch_job, "GetModelCustomizationJob"),
        (candidate.handler.deploy, "GetCustomModelDeployment"),
    ):
        world.server.fault("throttled", operation=operation)
        result = entry({"release": A}, None)
        assert (result["outcome"], result["seconds"]) == ("waiting", 300)
        assert "ThrottlingException" in result["message"]
        world.server.fault("denied", operation=operation)
        with pytest.raises(ClientError, match="AccessDenied"):
            entry({"release": A}, None)
