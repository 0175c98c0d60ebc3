"""On-demand deployments and custom models: adopted by name and tag, deleted in the one order that works."""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.bedrock import deployments, models, ownership
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG
from tests.unit.resource_scenes import DIGEST, HOUR, JOB, NAME, NEXT, OWNER, Meddled, World, refusal, times

CREATE = "CreateCustomModelDeployment"


def ensure(
    world: World, model: str, attempt: int = 1, bedrock: Any = None, absence_seconds: float = 0.0
) -> dict[str, Any]:
    return deployments.ensure(
        bedrock or world.bedrock,
        name=NAME,
        model_arn=model,
        owner=OWNER,
        claimant=JOB,
        tags={OWNER_TAG: OWNER, DIGEST_TAG: DIGEST},
        token=f"{NAME}-{attempt}",
        description="a release",
        absence_seconds=absence_seconds,
    )


def test_a_deployment_is_created_once_and_becomes_active(world: World) -> None:
    """Case B30."""
    model = world.model()

    first = ensure(world, model)
    second = ensure(world, model)
    world.server.advance(HOUR)
    third = ensure(world, model)

    assert [found["status"] for found in (first, second, third)] == ["Creating", "Creating", "Active"]
    assert len({found["customModelDeploymentArn"] for found in (first, second, third)}) == 1
    (call,) = world.server.calls(CREATE)
    assert call["parameters"]["modelArn"] == model
    assert call["parameters"]["modelDeploymentName"] == NAME


def test_one_that_is_not_visible_yet_is_creating(world: World) -> None:
    """Case B30."""
    model = world.model()

    def missing() -> None:
        raise refusal("ResourceNotFoundException", status=404)

    blind = Meddled(world.bedrock, before={"get_custom_model_deployment": missing})

    assert ensure(world, model, bedrock=blind)["status"] == "Creating"


def test_a_failed_deployment_says_why_and_can_be_deleted(world: World) -> None:
    """Case B31."""
    model = world.model()
    world.server.fault("deployment_failed", message="No capacity.")
    ensure(world, model)
    world.server.advance(HOUR)

    found = ensure(world, model)

    assert (found["status"], found["failureMessage"]) == ("Failed", "No capacity.")
    assert deployments.delete(world.bedrock, NAME)
    assert world.server.state()["deployments"] == []


def test_delete_waits_while_bedrock_works_on_it(world: World) -> None:
    """Case B34."""
    model = world.model()
    ensure(world, model)

    assert not deployments.delete(world.bedrock, NAME)
    world.server.advance(HOUR)
    assert deployments.delete(world.bedrock, NAME)
    assert deployments.delete(world.bedrock, NAME)
    assert world.server.state()["deployments"] == []


def test_a_name_in_use_by_us_is_adopted(world: World) -> None:
    """Case B35."""
    model = world.model()

    def made_meanwhile() -> None:
        ensure(world, model)

    late = Meddled(world.bedrock, before={"create_custom_model_deployment": made_meanwhile})
    found = ensure(world, model, attempt=2, bedrock=late)

    assert world.server.calls(CREATE)[-1]["outcome"] == "ValidationException"
    assert found["modelArn"] == model
    assert len(world.server.state()["deployments"]) == 1


def test_deployment_that_another_resource_created_is_claimed(world: World) -> None:
    """The release was moved to another logical id, whose Delete must not take it."""
    model = world.model()
    arn = world.deploy(model)

    ensure(world, model)

    assert ownership.claims(world.tags(arn)).keys() == {JOB.key}


def test_deployment_whose_tags_are_seen_late_is_not_taken_for_anothers(world: World) -> None:
    model = world.model()
    arn = world.deploy(model)
    missing = times(1, refusal("ResourceNotFoundException", status=404))
    late = Meddled(world.bedrock, before={"list_tags_for_resource": missing})

    assert ensure(world, model, bedrock=late, absence_seconds=0.6)["customModelDeploymentArn"] == arn


@pytest.mark.parametrize("foreign", ["owner", "model"])
def test_a_name_in_use_by_another_is_refused(world: World, foreign: str) -> None:
    """Case B35."""
    model = world.model()
    arn = world.deploy(world.model(NEXT) if foreign == "model" else model, ours=foreign == "model")

    with pytest.raises(ResourceError, match=r"not belong to this release.*distillation\.nonce") as caught:
        ensure(world, model)

    assert arn in str(caught.value)
    assert len(world.server.state()["deployments"]) == 1


@pytest.mark.parametrize("how", ["dropped", "error"])
def test_a_lost_answer_is_found_again_by_name(world: World, how: str) -> None:
    model = world.model()
    world.server.fault("lost_response", operation=CREATE, answer=how)

    assert ensure(world, model)["status"] == "Creating"
    assert len(world.server.state()["deployments"]) == 1


def test_throttling_may_be_retried_and_a_refusal_may_not(world: World) -> None:
    model = world.model()
    world.server.fault("throttled", operation=CREATE)
    with pytest.raises(NotYetError, match="Too many requests"):
        ensure(world, model)
    world.server.fault("over_quota", operation=CREATE, message="2 deployments in progress")
    with pytest.raises(ResourceError, match="2 deployments in progress") as caught:
        ensure(world, model)
    assert not isinstance(caught.value, NotYetError)


def test_an_attempts_token_does_not_bring_back_what_was_deleted(world: World) -> None:
    """Case B35."""
    model = world.model()
    ensure(world, model)
    world.server.advance(HOUR)
    deployments.delete(world.bedrock, NAME)

    # Bedrock ignores a token that it has seen, without an error.
    assert ensure(world, model, attempt=1)["status"] == "Creating"
    assert world.server.state()["deployments"] == []

    ensure(world, model, attempt=2)
    assert len(world.server.state()["deployments"]) == 1


def test_deployments_are_listed_by_the_owners_names_on_every_page(world: World) -> None:
    model = world.model()
    ours = [world.deploy(model, f"{OWNER}-{number:012x}") for number in range(3)]
    world.deploy(model, f"{OWNER}-canary")
    world.deploy(model, f"other-{OWNER}-{8:012x}")

    found = list(deployments.listed(Paged(world.bedrock), OWNER))

    assert {item["customModelDeploymentArn"] for item in found} == set(ours)


class Paged:
    """A client whose lists come in pages of two."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_paginator(self, operation: str) -> Any:
        """The operation's paginator, in small pages."""
        paginator = self._client.get_paginator(operation)

        class Small:
            @staticmethod
            def paginate(**parameters: Any) -> Any:
                return paginator.paginate(**parameters, PaginationConfig={"PageSize": 2})

        return Small


def test_models_are_found_by_name_and_arn_and_listed_by_owner(world: World) -> None:
    """Case T11."""
    arns = [world.model(digest) for digest in (DIGEST, NEXT, "c" * 12)]

    for identifier in (NAME, arns[0]):
        found = models.find(world.bedrock, identifier)
        assert found is not None
        assert (found["modelArn"], found["jobArn"]) == (arns[0], world.job()["arn"])
    assert models.find(world.bedrock, f"{OWNER}-nothing") is None
    assert {model["modelArn"] for model in models.listed(Paged(world.bedrock), OWNER)} == set(arns)
    assert list(models.listed(world.bedrock, "video-router")) == []


def test_a_model_is_deleted_only_after_all_that_uses_it(world: World) -> None:
    """Case B13."""
    model = world.model()
    deployment = world.deploy(model)
    units = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName="units", modelId=model, modelUnits=1
    )["provisionedModelArn"]
    world.server.advance(HOUR)

    assert models.users(world.bedrock, model) == [deployment, units]
    assert not models.delete(world.bedrock, model)
    world.bedrock.delete_provisioned_model_throughput(provisionedModelId=units)
    assert not models.delete(world.bedrock, model)
    assert deployments.delete(world.bedrock, deployment)
    assert models.users(world.bedrock, model) == []
    assert models.delete(world.bedrock, model)
    assert models.delete(world.bedrock, model)


def test_a_denied_deletion_is_an_error_and_no_answer(world: World) -> None:
    model = world.model()
    deployment = world.deploy(model)
    world.server.fault("denied", operation="DeleteCustomModel")
    world.server.fault("denied", operation="DeleteCustomModelDeployment")

    with pytest.raises(Exception, match="AccessDenied"):
        models.delete(world.bedrock, model)
    with pytest.raises(Exception, match="AccessDenied"):
        deployments.delete(world.bedrock, deployment)


def test_what_has_gone_is_a_success_although_the_call_is_denied(world: World) -> None:
    """What has gone has no owner's tag, by which the role may touch it."""
    model = world.model()
    deployment = world.deploy(model)
    assert deployments.delete(world.bedrock, deployment)
    assert models.delete(world.bedrock, model)
    for operation in ("DeleteCustomModel", "DeleteCustomModelDeployment", "TagResource", "UntagResource"):
        world.server.fault("denied", operation=operation)
    assert deployments.delete(world.bedrock, deployment)
    assert models.delete(world.bedrock, model)
    ownership.add_tags(world.bedrock, model, {"stage": "prod"})
    ownership.remove_tags(world.bedrock, model, ["stage"])


def test_a_tag_that_is_denied_is_an_error(world: World) -> None:
    model = world.model()
    world.server.fault("denied", operation="TagResource")
    with pytest.raises(Exception, match="AccessDenied"):
        ownership.claim(world.bedrock, model, JOB)


def test_deletion_that_does_not_find_a_new_resource_is_not_done(world: World) -> None:
    """Bedrock's answers lag behind its creation."""
    model = world.model()
    deployment = world.deploy(model)
    late = Meddled(
        world.bedrock,
        before={
            name: times(1, refusal("ResourceNotFoundException", status=404))
            for name in ("delete_custom_model_deployment", "delete_custom_model")
        },
    )
    assert [deployments.delete(late, deployment) for _ in range(2)] == [False, True]
    assert [models.delete(late, model) for _ in range(2)] == [False, True]
    assert (world.server.state()["deployments"], world.server.state()["models"]) == ([], [])
