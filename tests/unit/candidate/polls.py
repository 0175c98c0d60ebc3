"""Polls of a release's source, as its state machine makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from candidate.watch_job import Clients, watch
from distilled_router.aws.state_machine import StageResult
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import HOLDOUT_TAG, TRAINING_TAG
from distilled_router.bedrock.ownership import claims
from distilled_router.env import CandidateEnv
from tests.unit.release_world import OWNER, RELEASE, A, World
from tests.unit.resource_scenes import unclaimed

STOPPING: dict[str, Any] = {"stop_stalled": True}
TWICE: dict[str, Any] = {"retry_internal_errors": 2}
NAME = f"{OWNER}-{A}"
CREATE, STOP = "CreateModelCustomizationJob", "StopModelCustomizationJob"


def candidate_env(**settings: Any) -> CandidateEnv:
    """Return the variables of the release's first steps, with changes."""
    usual: dict[str, Any] = {
        "owner": OWNER,
        "table_name": "releases",
        "poll_seconds": 300,
        "timeout_hours": 120,
        "stall_hours": 48,
        "stop_stalled": False,
        "retry_internal_errors": 0,
        "labelling_machine_arn": "",
        "stack_id": RELEASE.stack_id,
        "logical_id": RELEASE.logical_id,
        "absence_seconds": 0,
        "tags": {},
        "holdout_sha256": "",
    }
    return CandidateEnv(**{**usual, **settings})


def poll(world: World, digest: str = A, *, bedrock: Any = None, **settings: Any) -> StageResult:
    """Poll once with changed settings; `bedrock` replaces the plain client."""
    return watch(
        digest,
        Clients(bedrock or world.bedrock, world.stepfunctions, world.server.s3),
        world.releases,
        candidate_env(**settings),
        now=world.now,
    )


def metrics(capture: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the metrics written since the last call."""
    return [json.loads(line) for line in capture.readouterr().out.splitlines() if "_aws" in line]


def all_jobs(world: World) -> dict[str, str]:
    """Return the status of every job by name."""
    return {job["name"]: job["status"] for job in world.server.state()["jobs"]}


def job_of(world: World, name: str = NAME) -> dict[str, Any]:
    """Return GetModelCustomizationJob's response."""
    found: dict[str, Any] = world.bedrock.get_model_customization_job(jobIdentifier=name)
    return found


def tags(world: World, arn: str) -> dict[str, str]:
    """Return a resource's tags, without claims."""
    found = world.bedrock.list_tags_for_resource(resourceARN=arn)["tags"]
    return unclaimed({tag["key"]: tag["value"] for tag in found})


def hashes(world: World, name: str = NAME) -> dict[str, str]:
    """Return the tags of a job that have the SHA-256 of its files."""
    found = tags(world, job_of(world, name)["jobArn"])
    return {tag: found[tag] for tag in (TRAINING_TAG, HOLDOUT_TAG)}


def claims_on(world: World, arn: str) -> dict[str, str]:
    """Return the claims on a resource."""
    return claims(ownership.read_tags(world.bedrock, arn) or {})


def only(shown: dict[str, Any]) -> Callable[..., Any]:
    """Return a GetModelCustomizationJob that finds only this job, and no further attempt."""

    def get(jobIdentifier: str) -> dict[str, Any]:  # noqa: N803 - as the API spells it
        if jobIdentifier in (shown["jobName"], shown["jobArn"]):
            return shown
        raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetModelCustomizationJob")

    return get
