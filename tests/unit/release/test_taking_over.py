"""A new model takes over the requests or fails: the live release meanwhile, and the remaining resources.

A new model never goes into the live deployment (UpdateCustomModelDeployment). It gets its own deployment,
which costs nothing while it is idle, and the route then points to that one. So the old model keeps its ARN
and its requests until the new one has passed evaluation and rollout, and after a failure nothing must be
restored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from candidate import deploy_candidate
from distilled_router.aws.state_machine import StageResult
from distilled_router.bedrock import deployments
from distilled_router.bedrock.naming import release_name
from distilled_router.release.route import Share
from distilled_router.release.table import FAILED, LIVE, RETIRED
from rollout.canary import CanaryAnalysis
from rollout.roll_out import advance
from tests.unit.candidate.polls import candidate_env
from tests.unit.local.bedrock.scenes import MINUTE, PROMPT, SYSTEM
from tests.unit.release_world import ANY, OWNER, A, B, Proxy, World, live_share, named, rollout

ENV = candidate_env()
ROLLOUT = rollout(0.25, 1.0)


def answers(world: World, endpoint: str) -> bool:
    """Return whether a model endpoint can be invoked."""
    runtime = world.server.client("bedrock-runtime", attempts=1)
    reply = runtime.converse(
        modelId=endpoint,
        system=[{"text": SYSTEM}],
        messages=[{"role": "user", "content": [{"text": PROMPT}]}],
        inferenceConfig={"temperature": 0},
    )
    return bool(reply["output"]["message"]["content"][0]["text"])


def deploy(world: World, bedrock: Any = None) -> StageResult:
    return deploy_candidate.deploy(B, bedrock or world.bedrock, world.releases, ENV, now=world.now)


@pytest.fixture
def old(world: World) -> str:
    """Return the endpoint of the live release A; B has its model and is in progress."""
    endpoint = world.deploy(A, world.train(A))
    world.begin(A, model_arn="arn:a", endpoint=endpoint, state=LIVE)
    world.settle(live_share(A, endpoint))
    model = world.train(B)
    world.begin(B, run=True, model_arn=model)
    world.declare(B)
    return endpoint


def test_the_deployments_arn_is_what_the_model_is_invoked_by(world: World, old: str) -> None:
    """Case B30."""
    deploy(world)
    world.advance(10 * MINUTE)
    assert deploy(world)["outcome"] == "done"
    endpoint = world.release(B).endpoint
    found = world.bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=f"{OWNER}-{B}")
    assert (endpoint, found["status"]) == (found["customModelDeploymentArn"], "Active")
    assert answers(world, endpoint)


def test_failed_deployment_is_removed_with_its_release_and_the_model_stays(world: World, old: str) -> None:
    """Case B31."""
    world.server.fault("deployment_failed", message="No capacity.")
    deploy(world)
    world.advance(10 * MINUTE)
    result = deploy(world)
    assert result["message"] == f"deployment {OWNER}-{B} failed: No capacity."
    world.releases.transition(B, FAILED, result["message"])
    world.sweeper().sweep()
    assert (world.deployments(), world.models()) == (named(A), named(A, B))


def test_the_old_model_serves_under_its_own_arn_until_the_route_has_moved(
    world: World, old: str, aws: Callable[[str], Any]
) -> None:
    """UpdateCustomModelDeployment is not used: see above. Case B32."""

    def roll_out() -> None:
        advance(B, world.releases, CanaryAnalysis(aws("cloudwatch"), world.name, ROLLOUT, ANY), now=world.now)

    deploy(world)
    world.advance(10 * MINUTE)
    deploy(world)
    new = world.release(B).endpoint
    assert new != old
    assert world.releases.route().shares == (live_share(A, old),)
    roll_out()
    assert [(s.endpoint, s.share) for s in world.releases.route().shares] == [(new, 0.25), (old, 0.75)]
    assert answers(world, old)
    for _ in ROLLOUT.steps:
        world.advance(ROLLOUT.dwell_seconds)
        roll_out()
    assert world.releases.route().shares == (live_share(B, new),)
    assert (world.release(A).state, world.release(B).state) == (RETIRED, LIVE)
    # A rollback to it is possible at once: it is kept unchanged.
    world.sweeper(keep=1).sweep()
    assert world.deployments() == named(A, B)
    assert answers(world, old)
    assert world.calls("UpdateCustomModelDeployment") == 0
    world.sweeper(keep=0).sweep()
    assert world.deployments() == named(B)


@pytest.mark.parametrize("refused", [False, True], ids=["fails", "is refused"])
def test_a_candidate_whose_deployment_fails_leaves_route_and_old_deployment_untouched(
    world: World, old: str, *, refused: bool
) -> None:
    """Nothing was updated, so nothing must be restored. Case B33."""
    before, found = world.releases.route(), deployments.find(world.bedrock, old)
    if refused:
        world.server.fault("over_quota", operation="CreateCustomModelDeployment")
    else:
        world.server.fault("deployment_failed", message="No capacity.")
        deploy(world)
        world.advance(10 * MINUTE)
    result = deploy(world)
    assert result["outcome"] == "failed"
    world.releases.transition(B, FAILED, result["message"])
    world.sweeper(keep=0).sweep()
    assert world.releases.route() == before
    after = deployments.find(world.bedrock, old)
    assert found is not None
    assert after is not None
    assert all(after[key] == found[key] for key in found if key != "ResponseMetadata")
    assert answers(world, old)
    assert world.deployments() == named(A)


def test_model_is_deleted_only_once_its_deployment_is_gone(world: World, old: str) -> None:
    """Bedrock deletes deployments asynchronously, and rejects the model's deletion until then. Case B34."""
    world.releases.update(A, state=FAILED)
    world.settle(Share(B, "arn:b", 1.0))
    model = str(world.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, A))["modelArn"])
    world.claim(model)
    world.unclaim(model)
    seen = world.bedrock.get_custom_model_deployment(customModelDeploymentIdentifier=old)
    going = Proxy(
        world.bedrock,
        get_custom_model_deployment=lambda **_: seen,
        list_custom_model_deployments=world.bedrock.list_custom_model_deployments,
        delete_custom_model_deployment=lambda **_: None,
    )
    swept = world.sweeper(bedrock=going).sweep()
    assert old in swept.waiting
    assert named(A) <= world.models()
    swept = world.sweeper().sweep()
    assert old in swept.removed
    assert world.models() == named(B)


def test_deployment_that_is_gone_already_is_deleted(world: World, old: str) -> None:
    """Case B34."""
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=old)
    assert deployments.delete(world.bedrock, old)


def test_deployment_of_the_name_that_is_ours_is_adopted(world: World, old: str) -> None:
    """Case B35."""
    world.deploy(B, world.release(B).model_arn)
    calls = world.calls("CreateCustomModelDeployment")
    assert deploy(world)["outcome"] == "done"
    assert world.calls("CreateCustomModelDeployment") == calls


def test_name_that_is_held_for_a_while_after_a_deletion_is_awaited(world: World, old: str) -> None:
    """Case B35."""
    held = "The provided model deployment name is currently in use."
    world.server.fault("validation", operation="CreateCustomModelDeployment", message=held, count=2)
    for _ in range(2):
        result = deploy(world)
        assert (result["outcome"], held in result["message"]) == ("waiting", True)
        world.advance(result["seconds"])
    assert deploy(world)["message"] == f"deployment {OWNER}-{B} is Creating"
    assert world.deployments() == named(A, B)


def test_name_that_stays_held_ends_the_release(world: World, old: str) -> None:
    """Case B35."""
    held = "A custom model deployment of this name already exists."
    world.server.fault("validation", operation="CreateCustomModelDeployment", message=held, count=None)
    world.advance(16 * MINUTE)
    result = deploy(world)
    assert result["outcome"] == "failed"
    for part in (held, "No deployment of this name exists", "another nonce"):
        assert part in result["message"]


def test_another_refusal_is_not_awaited(world: World, old: str) -> None:
    """Case B35."""
    world.server.fault("validation", operation="CreateCustomModelDeployment")
    assert deploy(world)["outcome"] == "failed"
