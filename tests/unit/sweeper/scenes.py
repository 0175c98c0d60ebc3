"""Releases with models, deployments and throughput, for the tests of the sweeper."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, release_name, throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.sweep import Sweep
from distilled_router.release.table import (
    LIVE,
)
from tests.unit.local.bedrock.scenes import MINUTE
from tests.unit.release_world import OWNER, RELEASE, A, World, live_share

D = "dddddddddddd"


Capture = pytest.CaptureFixture[str]


def made(world: World, digest: str, state: str, **fields: Any) -> str:
    """A release with model and deployment in a state; the deployment's ARN. The job's resource is gone."""
    arn = world.deploy(digest, trained(world, digest))
    world.begin(digest)
    world.releases.update(digest, state=state, **fields)
    return arn


def trained(world: World, digest: str) -> str:
    """The ARN of a model that the release claims, and no job's resource."""
    arn = world.train(digest)
    world.claim(arn)
    world.unclaim(arn)
    return arn


def model_of(world: World, digest: str) -> str:
    """The ARN of a release's model."""
    return str(world.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, digest))["modelArn"])


def succeeded(world: World) -> None:
    """Another release has begun since."""
    world.advance(MINUTE)
    world.begin(D)
    world.declare(D)


def claims_of(world: World, arn: str) -> list[str]:
    """The logical ids that claim a resource."""
    tags = ownership.read_tags(world.bedrock, arn) or {}
    return sorted(text.rpartition(" ")[2] for text in ownership.claims(tags).values())


def cleared(world: World, **changes: Any) -> Sweep:
    """The last of as many calls as the end of the resource takes."""
    while (swept := world.sweeper(**changes).clear()).waiting:
        world.advance(MINUTE)
    return swept


ONE, TWO = throughput_name(OWNER, 1, None), throughput_name(OWNER, 2, None)


def buy(
    world: World,
    model: str,
    name: str = ONE,
    claimant: Claimant | None = RELEASE,
    *,
    wait: bool = True,
    **more: Any,
) -> str:
    """Throughput that the release bought, or another resource of the same owner; its ARN."""
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=name,
        modelId=model,
        modelUnits=1,
        tags=bedrock_tags({OWNER_TAG: OWNER, **(claimant.tag if claimant else {})}),
        **more,
    )
    if wait:
        world.advance(30 * MINUTE)
    return str(made["provisionedModelArn"])


def bought(world: World) -> set[str]:
    """The names of what is paid by the hour."""
    return {found["name"] for found in world.server.state()["throughput"]}


def live(world: World, digest: str = A, *, runs: bool, **fields: Any) -> str:
    """A release that serves from its deployment, whose execution runs or has ended; its model's ARN."""
    arn = made(world, digest, LIVE, **fields)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{digest}-1")
    if not runs:
        world.stepfunctions.stop_execution(executionArn=world.execution(digest))
    world.settle(live_share(digest, arn))
    return str(world.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, digest))["modelArn"])


def unrouted(capture: Capture) -> list[int]:
    """The values of the metric in the function's log."""
    lines = [json.loads(line) for line in capture.readouterr().out.splitlines()]
    return [int(line["UnroutedThroughput"][0]) for line in lines if "UnroutedThroughput" in line]


def failures(capture: Capture) -> int:
    lines = [json.loads(line) for line in capture.readouterr().out.splitlines()]
    return sum("FailedReleases" in line for line in lines if "_aws" in line)
