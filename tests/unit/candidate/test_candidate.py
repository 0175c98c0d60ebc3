"""The release's model is deployed once."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

import candidate.handler
from candidate import deploy_candidate
from distilled_router.aws.absence import confirmed
from distilled_router.aws.state_machine import StageResult
from distilled_router.release.table import DEPLOYING, FAILED, SUPERSEDED, WAITING
from tests.unit.candidate import polls
from tests.unit.local.bedrock.scenes import MINUTE
from tests.unit.release_world import OWNER, RELEASE, A, Proxy, World, named

ENV = polls.candidate_env(tags={"team": "search"})
NAME = f"{OWNER}-{A}"


def deploy(world: World, digest: str = A, **others: Any) -> StageResult:
    bedrock, env = others.get("bedrock", world.bedrock), others.get("env", ENV)
    return deploy_candidate.deploy(digest, bedrock, world.releases, env)


def ready(world: World, digest: str = A, attempt: int = 1) -> None:
    """Return the digest of a release whose job has completed."""
    model = world.train(digest)
    world.begin(digest, attempt, model_arn=model)


def test_deployment_is_created_once_and_awaited(world: World) -> None:
    """Case B30."""
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
        **RELEASE.tags(OWNER, request="request-1", digest=A),
    }


def test_deployment_that_is_readable_after_a_minute_is_awaited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first poll may come after one second, `release.poll_seconds`."""
    ready(world)
    monkeypatch.setattr(confirmed, "__kwdefaults__", {"sleep": world.advance, "now": lambda: world.now})
    world.server.lag(get_seconds=60)
    assert deploy(world)["outcome"] == "waiting"
    world.advance(1)
    result = deploy(world, env=polls.candidate_env(absence_seconds=60))
    assert result["message"] == f"deployment {NAME} is Creating"
    assert world.calls("CreateCustomModelDeployment") == 1


def test_failed_deployment_ends_the_release_with_bedrocks_reason(world: World) -> None:
    """Case B31."""
    ready(world)
    world.server.fault("deployment_failed", message="No capacity.")
    deploy(world)
    world.advance(10 * MINUTE)
    assert deploy(world) == {
        "outcome": "failed",
        "message": f"deployment {NAME} failed: No capacity.",
        "seconds": 0,
    }


def test_deployment_of_the_name_that_is_not_ours_is_left_alone(world: World) -> None:
    """Case B35."""
    ready(world)
    world.deploy_as(NAME, world.release(A).model_arn, {})
    result = deploy(world)
    assert (result["outcome"], "does not belong to this release" in result["message"]) == ("failed", True)
    assert world.deployments() == named(A)


def test_quota_ends_the_release_with_bedrocks_text(world: World) -> None:
    """Case B16."""
    ready(world)
    world.server.fault("over_quota", operation="CreateCustomModelDeployment")
    assert "ServiceQuotaExceededException" in deploy(world)["message"]


def test_lost_answer_of_the_create_creates_no_second_deployment(world: World) -> None:
    ready(world)
    world.server.fault("lost_response", operation="CreateCustomModelDeployment", answer="error")
    assert deploy(world)["outcome"] == "waiting"
    assert world.deployments() == named(A)


def test_superseded_release_gets_no_deployment(world: World) -> None:
    ready(world)
    world.releases.transition(A, SUPERSEDED, "by another")
    assert deploy(world)["outcome"] == "failed"
    assert world.calls("CreateCustomModelDeployment") == 0


def test_stack_that_is_being_deleted_gets_no_deployment(world: World) -> None:
    ready(world)
    world.close()
    assert deploy(world)["outcome"] == "failed"
    assert world.deployments() == set()


def test_deployment_is_created_while_the_end_of_the_stack_would_wait(world: World) -> None:
    ready(world)

    def create(**parameters: Any) -> Any:
        assert world.releases.is_creating()
        return world.bedrock.create_custom_model_deployment(**parameters)

    deploy(world, bedrock=Proxy(world.bedrock, create_custom_model_deployment=create))
    assert world.deployments() == named(A)
    assert not world.releases.is_creating()


def test_release_that_is_superseded_while_its_deployment_is_created_ends(world: World) -> None:
    ready(world)

    def create(**parameters: Any) -> Any:
        world.releases.transition(A, SUPERSEDED, "by another")
        return world.bedrock.create_custom_model_deployment(**parameters)

    result = deploy(world, bedrock=Proxy(world.bedrock, create_custom_model_deployment=create))
    assert result["outcome"] == "failed"
    assert (world.release(A).state, world.release(A).endpoint) == (SUPERSEDED, "")


def again(world: World) -> None:
    """Let the sweeper remove the first attempt's deployment, and begin the release again."""
    deploy(world)
    world.advance(10 * MINUTE)
    deploy(world)
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=NAME)
    world.releases.transition(A, FAILED, "refused by the gate")


def test_second_attempt_creates_a_new_deployment(world: World) -> None:
    """With a token that Bedrock has seen, the call would create nothing and raise no error."""
    ready(world)
    again(world)
    world.begin(A, 2)
    assert deploy(world)["outcome"] == "waiting"
    assert world.deployments() == named(A)


def test_first_attempt_of_a_new_life_creates_a_new_deployment(world: World) -> None:
    """The stack was destroyed and deployed again: attempts start at 1 again, and the model was retained."""
    ready(world)
    again(world)
    model = world.release(A).model_arn
    world.releases.table.delete_item(Key={"id": world.releases.key(f"release@{A}")})
    world.releases.begin(A, attempt=1, execution=world.execution(A), request_id="another-stack")
    world.releases.update(A, model_arn=model)
    assert deploy(world)["outcome"] == "waiting"
    assert world.deployments() == named(A)


def test_deployment_that_is_deleted_meanwhile_ends_the_release(world: World) -> None:
    ready(world)
    deploy(world)
    world.advance(10 * MINUTE)
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=NAME)
    assert "was created and then deleted" in deploy(world)["message"]


def test_throttled_create_is_retried_and_creates_one_deployment(world: World) -> None:
    ready(world)
    world.server.fault("throttled", operation="CreateCustomModelDeployment")
    assert (deploy(world)["outcome"], world.release(A).state) == ("waiting", WAITING)
    assert deploy(world)["message"] == f"deployment {NAME} is Creating"
    assert world.deployments() == named(A)


def test_call_that_would_succeed_later_ends_no_release(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(world)
    for name, value in ENV.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(candidate.handler, "client", lambda _: world.bedrock)
    monkeypatch.setattr(candidate.handler, "table", lambda _: world.releases.table)
    for entry, operation in (
        (candidate.handler.watch_job, "GetModelCustomizationJob"),
        (candidate.handler.deploy_candidate, "GetCustomModelDeployment"),
    ):
        world.server.fault("throttled", operation=operation)
        result = entry({"release": A}, None)
        assert (result["outcome"], result["seconds"]) == ("waiting", 300)
        assert "ThrottlingException" in result["message"]
        world.server.fault("throttled", operation=operation)
        assert entry({"release": A, "since": "2026-11-20T00:00:00.000Z"}, None)["seconds"] == 3_600
        world.server.fault("denied", operation=operation)
        with pytest.raises(ClientError, match="AccessDenied"):
            entry({"release": A}, None)
