"""A model that is to be served, and the resource that buys its throughput by the deployment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from distilled_router.bedrock.naming import throughput_name
from distilled_router.bedrock.ownership import Claimant
from local.bedrock import BedrockStandIn, Quotas, Settings
from provisioned_throughput import handler
from tests.unit import framework
from tests.unit.framework import Framework, Response
from tests.unit.requests_table import behind_framework
from tests.unit.resource_scenes import NEXT, World

BUY, MOVE = "CreateProvisionedModelThroughput", "UpdateProvisionedModelThroughput"
DELETE, LOOK = "DeleteProvisionedModelThroughput", "GetProvisionedModelThroughput"
OWNER, NAME = "search", "search-router-1mu"
TWO, MONTH = "movies-2mu", "search-router-1mu-1m"
OTHER = {"LogicalResourceId": "OtherResource1A2B3C4D"}
RESOURCE = Claimant(framework.STACK, "JobResource5F6E7A8B")
# The resource waits 55 minutes. Here its polls lie further apart, so that there are fewer.
TICK, POLLS = 300, 11


class Shop:
    """A model that is to be served, and the resource that buys its throughput."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model, self.other = world.model(), world.model(NEXT)
        self.created: dict[str, Any] = {}

    def properties(self, name: str = "search-router", units: int = 1, **changes: Any) -> dict[str, Any]:
        """Return the properties as CloudFormation sends them."""
        commitment = changes.get("CommitmentDuration")
        properties = {
            "ProvisionedModelName": throughput_name(name, units, commitment),
            "Owner": OWNER,
            "ModelArn": self.model,
            "ModelUnits": str(units),
            "HourlyPriceUsd": "50.0",
            "Retain": "false",
            "Tags": {"team": "search"},
            **changes,
        }
        return {key: value for key, value in properties.items() if value is not None}

    def resource(self, bedrock: Any = None, polls: int = POLLS, absence_seconds: float = 0.0) -> Framework:
        """Return the resource behind its framework."""
        client, now = bedrock or self.world.bedrock, self.world.utc_now
        return behind_framework(
            self.world.requests,
            lambda event: handler.handle(replace(event, absence_seconds=absence_seconds), client, now),
            lambda event: handler.check(replace(event, absence_seconds=absence_seconds), client, now),
            tick=lambda: self.world.server.advance(TICK),
            most_polls=polls,
        )

    def create(self, bedrock: Any = None, polls: int = POLLS, **changes: Any) -> Response:
        """Return a Create event."""
        self.created = framework.create(self.properties(**changes))
        return self.resource(bedrock, polls).send(self.created)

    def update(
        self, new: dict[str, Any], old: dict[str, Any], physical_id: str = NAME, bedrock: Any = None
    ) -> Response:
        """Send an Update."""
        return self.resource(bedrock).send(framework.update(physical_id, new, old))

    def delete(self, physical_id: str = NAME, **changes: Any) -> Response:
        """Return a Delete event."""
        return self.resource().send(framework.delete(physical_id, self.properties(**changes)))

    @property
    def bought(self) -> list[dict[str, Any]]:
        """Return the throughput that is billed by the hour."""
        found: list[dict[str, Any]] = self.world.server.state()["throughput"]
        return found

    @property
    def names(self) -> list[str]:
        """Return the names of the throughput."""
        return [found["name"] for found in self.bought]


@pytest.fixture(scope="module")
def roomy(rows: bytes) -> Iterator[World]:
    """An account with room for two purchases at once."""
    with BedrockStandIn(settings=Settings(quotas=Quotas(model_units=9))) as server:
        server.s3.put_object(Bucket="data", Key="datasets/d1/training.jsonl", Body=rows)
        yield World(server, server.client("bedrock", attempts=1), server.s3)


@pytest.fixture
def world(roomy: World) -> World:
    """The account, emptied."""
    roomy.server.reset()
    return World(roomy.server, roomy.bedrock, roomy.s3)


@pytest.fixture
def shop(world: World) -> Shop:
    return Shop(world)
