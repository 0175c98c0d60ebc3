"""Throughput is found by its possible names, even during a rename."""

from __future__ import annotations

from distilled_router.bedrock import purchase, throughput
from distilled_router.bedrock.naming import bedrock_tags
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.purchase import ThroughputSpec
from tests.unit.resource_scenes import HOUR, OWNER, Meddled, World, refusal, times

RESOURCE = Claimant("arn:stack", "Throughput")
OLD, NEW = "search-ranker-1mu", "search-router-1mu"


def test_a_rename_by_the_same_event_delivered_twice_is_not_taken_for_a_loss(world: World) -> None:
    """Cases B1, B23."""
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=OLD,
        modelId=world.model(),
        modelUnits=1,
        tags=bedrock_tags({**RESOURCE.tags(OWNER, request="r"), throughput.CREATED_AS_TAG: NEW}),
    )
    arn = made["provisionedModelArn"]
    world.server.advance(HOUR)
    looks = 0

    def rename_before_the_second_look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            world.bedrock.update_provisioned_model_throughput(
                provisionedModelId=arn, desiredProvisionedModelName=NEW
            )

    client = Meddled(
        world.bedrock, before={"get_provisioned_model_throughput": rename_before_the_second_look}
    )
    found = throughput.find_own(client, RESOURCE, NEW, NEW, OLD)

    assert found is not None
    assert (found["provisionedModelArn"], looks) == (arn, 3)


def test_model_that_is_not_found_once_is_served(world: World) -> None:
    model = world.model()
    spec = ThroughputSpec(name=NEW, model_units=1, owner=OWNER, claimant=RESOURCE, token="t" * 33)
    missing = times(1, refusal("ResourceNotFoundException", status=404))
    late = Meddled(world.bedrock, before={"get_custom_model": missing})
    found = purchase.ensure(late, spec, model, now=world.utc_now(), absence_seconds=1)
    assert found["status"] == throughput.CREATING
