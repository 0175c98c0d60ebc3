"""One owner's releases with test doubles: the Bedrock stand-in and the emulator."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

import boto3
import pytest

from distilled_router.bedrock import jobs, ownership
from distilled_router.bedrock.naming import HOLDOUT_TAG, TRAINING_TAG, bedrock_tags, release_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.sweep import Sweeper
from distilled_router.release.table import Release, Releases
from local.bedrock import BedrockStandIn
from tests.unit.framework import STACK
from tests.unit.local.bedrock.scenes import HOUR, MINUTE, ROLE, STUDENT, TEACHER, labelled, lines
from tests.unit.requests_table import RequestsTable

OWNER = "router-test"
A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
# What the jobs' tags say of the hold-out set.
HOLDOUT_SHA256 = "0" * 64

# Executions of the first machine run until they are stopped, those of the second end at once.
LASTING = {"Type": "Wait", "Seconds": 100_000, "End": True}
PASSING = {"Type": "Pass", "End": True}


class Proxy:
    """A client with some of its methods replaced."""

    def __init__(self, real: Any, **replaced: Callable[..., Any]) -> None:
        self._real, self._replaced = real, replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced[name] if name in self._replaced else getattr(self._real, name)


# The custom resources of the job and of the release.
JOB = Claimant(STACK, "JobResource5F6E7A8B")
RELEASE = Claimant(STACK, "ReleaseResource1A2B3C4D")


@dataclass
class World:
    """Clients and table of the release's functions. The table uses the stand-in's clock."""

    server: BedrockStandIn
    bedrock: Any
    stepfunctions: Any
    s3: Any
    releases: Releases
    number: int
    requests: RequestsTable = field(default_factory=RequestsTable)

    @property
    def name(self) -> str:
        """Return a name that no other test uses."""
        return str(self.releases.table.name)

    @cached_property
    def bucket(self) -> str:
        """Return a versioned bucket."""
        self.s3.create_bucket(Bucket=self.name)
        versioning = {"Status": "Enabled"}
        self.s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration=versioning)
        return self.name

    @cached_property
    def machine(self) -> str:
        """Return the ARN of a state machine whose executions run until they are stopped."""
        definition = json.dumps({"StartAt": "Only", "States": {"Only": LASTING}})
        role = "arn:aws:iam::000000000000:role/machine"
        made = self.stepfunctions.create_state_machine(
            name=f"{OWNER}-release-{self.number}", definition=definition, roleArn=role
        )
        return str(made["stateMachineArn"])

    @property
    def now(self) -> float:
        """Return the stand-in's time."""
        return self.server.clock.now()

    def advance(self, seconds: float) -> None:
        """Advance the stand-in's clock."""
        self.server.advance(seconds)

    def start_job(self, digest: str, rows: bytes | None = None) -> str:
        """Start a release's job as its custom resource does; return the job's name."""
        name, body = release_name(OWNER, digest), rows or lines(labelled())
        self.server.s3.put_object(Bucket="data", Key=f"{name}.jsonl", Body=body)
        hashes = {TRAINING_TAG: hashlib.sha256(body).hexdigest(), HOLDOUT_TAG: HOLDOUT_SHA256}
        spec = jobs.JobSpec(
            job_name=name,
            custom_model_name=name,
            role_arn=ROLE,
            base_model_identifier=STUDENT,
            customization_type="DISTILLATION",
            training_data_uri=f"s3://data/{name}.jsonl",
            output_data_uri="s3://data/output/",
            teacher_model_identifier=TEACHER,
            tags={**JOB.tags(OWNER, request="request-0", digest=digest), **hashes},
        )
        jobs.ensure(self.bedrock, spec, jobs.Request(JOB, "request-0"), allow_legacy=False)
        return name

    def claim(self, arn: str, claimant: Claimant | None = None) -> None:
        """Claim a model for the release, as WatchJob does."""
        ownership.claim(self.bedrock, arn, claimant or RELEASE)

    def declare(self, digest: str) -> None:
        """Declare a digest, as the release's resource does."""
        self.releases.declarations.declare(RELEASE, digest)

    def close(self) -> None:
        """Remove the declaration, as the Delete of the release's resource does."""
        self.releases.declarations.remove(RELEASE)

    def unclaim(self, arn: str) -> None:
        """Remove the claim on a job or model, as the Delete of the job's resource does."""
        ownership.release(self.bedrock, arn, JOB)

    def train(self, digest: str, rows: bytes | None = None) -> str:
        """Run a release's job to its end; return the model's ARN."""
        name = self.start_job(digest, rows)
        self.advance(2 * HOUR)
        job = self.bedrock.get_model_customization_job(jobIdentifier=name)
        assert job["status"] == "Completed", job.get("failureMessage")
        return str(job["outputModelArn"])

    def deploy(self, digest: str, model: str, *, wait: bool = True) -> str:
        """Deploy a model as a release does; return the deployment's ARN."""
        tags = RELEASE.tags(OWNER, request="request-1", digest=digest)
        return self.deploy_as(release_name(OWNER, digest), model, tags, wait=wait)

    def deploy_as(self, name: str, model: str, tags: Mapping[str, str], *, wait: bool = True) -> str:
        """Deploy a model under any name, with any tags."""
        made = self.bedrock.create_custom_model_deployment(
            modelDeploymentName=name, modelArn=model, tags=bedrock_tags(tags)
        )
        if wait:
            self.advance(10 * MINUTE)
        return str(made["customModelDeploymentArn"])

    def begin(self, digest: str, attempt: int = 1, *, run: bool = False, **fields: Any) -> Release:
        """Begin a release in the table, with a running execution where that matters. `source` is a field."""
        self.releases.begin(
            digest,
            attempt=attempt,
            execution=self.execution(digest, attempt),
            request_id=f"request-{attempt}",
            source=fields.pop("source", release_name(OWNER, digest)),
        )
        if run:
            self.stepfunctions.start_execution(stateMachineArn=self.machine, name=f"{digest}-{attempt}")
        if fields:
            self.releases.update(digest, **fields)
        return self.release(digest)

    def execution(self, digest: str, attempt: int = 1) -> str:
        """Return the ARN of an attempt's execution."""
        machine = f"{OWNER}-release-{self.number}"
        return f"arn:aws:states:us-east-1:000000000000:execution:{machine}:{digest}-{attempt}"

    def executions(self) -> dict[str, str]:
        """Return the status of every execution of the machine by name."""
        found = self.stepfunctions.list_executions(stateMachineArn=self.machine)["executions"]
        return {execution["name"]: execution["status"] for execution in found}

    def change_machine(self, state: dict[str, Any]) -> None:
        """Change the machine for executions that start from now on."""
        definition = json.dumps({"StartAt": "Only", "States": {"Only": state}})
        self.stepfunctions.update_state_machine(stateMachineArn=self.machine, definition=definition)

    def release(self, digest: str) -> Release:
        """Return a release, which must exist."""
        release = self.releases.get(digest)
        assert release is not None
        return release

    def settle(self, *shares: Share) -> None:
        """Set the route to these shares."""
        self.releases.set_route(shares, after=self.releases.route(), reason="the test's")

    def sweeper(
        self,
        *,
        keep: int = 1,
        retain: bool = False,
        throughput_name: str = "",
        retain_throughput: bool = False,
        **clients: Any,
    ) -> Sweeper:
        """Return the owner's sweeper."""
        return Sweeper(
            bedrock=clients.get("bedrock", self.bedrock),
            stepfunctions=clients.get("stepfunctions", self.stepfunctions),
            releases=self.releases,
            claimant=clients.get("claimant", RELEASE),
            keep_releases=keep,
            retain_models=retain,
            throughput_name=throughput_name,
            retain_throughput=retain_throughput,
            now=lambda: self.now,
        )

    def deployments(self) -> set[str]:
        """Return the names of all deployments of the account."""
        found = self.bedrock.list_custom_model_deployments()["modelDeploymentSummaries"]
        return {deployment["customModelDeploymentName"] for deployment in found}

    def models(self) -> set[str]:
        """Return the names of all custom models of the account."""
        return {model["modelName"] for model in self.bedrock.list_custom_models()["modelSummaries"]}

    def calls(self, operation: str) -> int:
        """Return the number of calls of a Bedrock operation."""
        return len(self.server.calls(operation))


@pytest.fixture(scope="session")
def stage(emulator: str) -> Iterator[tuple[BedrockStandIn, Any, Any]]:
    """Yield one stand-in with its client for all tests, reset before each, and one DynamoDB resource."""
    with BedrockStandIn() as server:
        yield server, server.client("bedrock", attempts=1), boto3.resource("dynamodb", endpoint_url=emulator)


@pytest.fixture
def world(stage: tuple[BedrockStandIn, Any, Any], aws: Callable[[str], Any]) -> World:
    """Return an account without any resource."""
    server, bedrock, dynamodb = stage
    server.reset()
    # Two conftest modules may import this one under different names, so counting from 1 is not unique.
    number = uuid4().int % 10**12
    table = dynamodb.create_table(
        TableName=f"{OWNER}-releases-{os.getpid()}-{number}",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    releases = Releases(table, OWNER, now=server.clock.now)
    return World(server, bedrock, aws("stepfunctions"), aws("s3"), releases, number)


def rollout(*steps: float, **changes: Any) -> Rollout:
    """Return the settings of a rollout whose limits are never exceeded, unless the test changes them."""
    usual = {
        "dwell_seconds": 600,
        "maximum_error_rate": 1.0,
        "maximum_fallback_rate": 1.0,
        "maximum_invalid_output_rate": 1.0,
        "probes": 0,
    }
    return Rollout(**{**usual, "steps": steps, **changes})


ANY = Gate(
    minimum_valid_output=0.0,
    minimum_dominant_accuracy=0.0,
    maximum_mean_absolute_error=1.0,
    minimum_examples=1,
    not_worse=False,
)
"""A gate that every answer passes."""


def live_share(digest: str, endpoint: str = "arn:endpoint") -> Share:
    """Return the share of a live release: all requests."""
    return Share(digest, endpoint, 1.0)


def named(*digests: str) -> set[str]:
    """Return the names of these releases' jobs, models and deployments."""
    return {release_name(OWNER, digest) for digest in digests}
