"""Shared set-up of the custom resources' tests."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from io import StringIO
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from distillation_job import handler as job_handler
from distilled_router.bedrock import ownership
from distilled_router.bedrock.jobs import JobSpec
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags
from distilled_router.bedrock.ownership import REQUEST_TAG, Claimant, claims
from distilled_router.data.conversation import row
from distilled_router.task.task import Task
from existing import handler as existing_handler
from local.bedrock import BedrockStandIn
from local.bedrock.faults import ROLE_TEXTS
from tests.unit import framework
from tests.unit.framework import Framework
from tests.unit.requests_table import RequestsTable, behind_framework

OWNER = "video-router-prod"
DIGEST, NEXT = "0123456789ab", "ba9876543210"
NAME = f"{OWNER}-{DIGEST}"
ROLE = "arn:aws:iam::000000000000:role/distillation-JobRole"
STUDENT = "amazon.nova-micro-v1:0:128k"
TEACHER = "us.amazon.nova-pro-v1:0"
KEY = "arn:aws:kms:us-east-1:000000000000:key/0b8f1c7e-1111-4222-8333-444455556666"
INTERNAL = "Encountered an internal error when processing the request."
# The custom resource of the job.
JOB = Claimant(framework.STACK, "JobResource5F6E7A8B")
POLL, HOUR, DAY = 5, 3600, 86_400
Hooks = Mapping[str, Callable[[], object]]

CREATE, STOP = "CreateModelCustomizationJob", "StopModelCustomizationJob"
ROLE_ERROR = ROLE_TEXTS[0]


def job_properties(digest: str = DIGEST, **changes: Any) -> dict[str, Any]:
    """Return a DistillationJob's properties as CloudFormation delivers them: strings."""
    name = f"{OWNER}-{digest}"
    properties = {
        "JobName": name,
        "CustomModelName": name,
        "RoleArn": ROLE,
        "BaseModelIdentifier": STUDENT,
        "CustomizationType": "DISTILLATION",
        "TrainingDataUri": "s3://data/datasets/d1/training.jsonl",
        "OutputDataUri": f"s3://data/jobs/{name}/",
        "TeacherModelIdentifier": TEACHER,
        "MaxResponseLengthForInference": "1000",
        "AllowLegacy": "false",
        "RetainModel": "false",
        "RetainOutput": "true",
        "Tags": {OWNER_TAG: OWNER, DIGEST_TAG: digest, "team": "search"},
        **changes,
    }
    return {key: value for key, value in properties.items() if value is not None}


def spec(digest: str = DIGEST, **changes: Any) -> JobSpec:
    """Return the job of those properties, as its resource creates it."""
    bare = job_handler.job_spec(job_properties(digest, **changes))
    return replace(bare, tags={**bare.tags, **JOB.tag})


def unclaimed(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags without those that say for whom and for which request something was created."""
    return {key: value for key, value in tags.items() if key not in {REQUEST_TAG, *claims(tags)}}


def training_rows(task: Task, rows: int = 120) -> bytes:
    """Return a training file that both methods accept."""
    weights = [{label: 1.0 * (label == wanted) for label in task.labels} for wanted in task.labels]
    lines = (
        json.dumps(row(task, f"query number {n}", weights[n % len(weights)]), ensure_ascii=False)
        for n in range(rows)
    )
    return "".join(f"{line}\n" for line in lines).encode()


class Meddled:
    """A client with hooks around its calls.

    `before` and `after` map methods of the client to hooks without arguments; a hook may raise instead of the
    call.
    """

    def __init__(self, client: Any, *, before: Hooks | None = None, after: Hooks | None = None) -> None:
        self._client, self._before, self._after = client, before or {}, after or {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in self._before and name not in self._after:
            return real

        def call(**parameters: Any) -> Any:
            self._before.get(name, _nothing)()
            result = real(**parameters)
            self._after.get(name, _nothing)()
            return result

        return call


def _nothing() -> None:
    return None


def times(number: int, error: Exception, skip: int = 0) -> Callable[[], None]:
    """Return a hook that raises an error a number of times, after `skip` calls without one."""
    calls = 0

    def hook() -> None:
        nonlocal calls
        calls += 1
        if skip < calls <= skip + number:
            raise error

    return hook


def refusal(code: str, text: str = "no", status: int = 400) -> ClientError:
    """Return a service's error."""
    return ClientError(
        {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]  # the other members play no part
        "Operation",
    )


@contextmanager
def logged(logger: Logger) -> Iterator[StringIO]:
    """Capture everything that a function's logger writes, including debug lines."""
    lines, level = StringIO(), logger.log_level
    output = logger.registered_handler
    assert isinstance(output, logging.StreamHandler)
    before = output.setStream(lines)
    logger.setLevel("DEBUG")
    try:
        yield lines
    finally:
        output.setStream(before)
        logger.setLevel(level)


@dataclass
class World:
    """A Bedrock account, and the resources' handlers behind the framework."""

    server: BedrockStandIn
    bedrock: Any
    s3: Any
    requests: RequestsTable = field(default_factory=RequestsTable)

    def jobs(self, bedrock: Any = None, absence_seconds: float = 0.0) -> Framework:
        """Return the DistillationJob resource; `bedrock` replaces the plain client."""
        client = bedrock or self.bedrock
        now = self.server.clock.now
        return behind_framework(
            self.requests,
            lambda event: job_handler.handle(event, now),
            lambda event: job_handler.check(
                replace(event, absence_seconds=absence_seconds), client, self.s3, now
            ),
            tick=lambda: self.server.advance(POLL),
        )

    def existing(self, bedrock: Any = None) -> Framework:
        """Return the Existing resource, without retries of denied access."""
        client = bedrock or self.bedrock
        look = partial(existing_handler.handle, bedrock=client, retry=lambda call, **_: call())
        return behind_framework(self.requests, look)

    def utc_now(self) -> datetime:
        """Return the stand-in's time."""
        return datetime.fromtimestamp(self.server.clock.now(), UTC)

    def count(self, operation: str) -> int:
        """Return how often an operation was carried out."""
        return sum(call["outcome"] in ("ok", "lost") for call in self.server.calls(operation))

    def written(self) -> list[str]:
        """Return the operations that changed something, in order."""
        reading = ("Get", "List")
        return [
            call["operation"] for call in self.server.calls() if not call["operation"].startswith(reading)
        ]

    def job(self, name: str = NAME) -> dict[str, Any]:
        """Return a job's record in the account."""
        return next(job for job in self.server.state()["jobs"] if job["name"] == name)

    def running(self) -> list[str]:
        """Return the names of running jobs."""
        return [job["name"] for job in self.server.state()["jobs"] if job["status"] == "InProgress"]

    def foreign_job(self, name: str = NAME) -> str:
        """Create a foreign job of this owner's job name."""
        other = job_handler.job_spec(job_properties(JobName=name, TrainingDataUri="s3://data/other.jsonl"))
        request = {**other.request(), "jobTags": [], "customModelTags": []}
        return str(self.bedrock.create_model_customization_job(**request)["jobArn"])

    def failed_job(self, message: str = INTERNAL) -> dict[str, Any]:
        """Return this stack's failed job, as GetModelCustomizationJob describes it."""
        self.server.fault("job_failed", message=message)
        self.jobs().send(framework.create(job_properties()))
        self.server.advance(HOUR)
        return self.described()

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of a job or a model."""
        return ownership.read_tags(self.bedrock, arn) or {}

    def described(self, name: str = NAME) -> dict[str, Any]:
        """Return GetModelCustomizationJob's response."""
        found: dict[str, Any] = self.bedrock.get_model_customization_job(jobIdentifier=name)
        return found

    def model(self, digest: str = DIGEST) -> str:
        """Train a model, and return its ARN."""
        self.bedrock.create_model_customization_job(**spec(digest).request())
        self.server.advance(3 * HOUR)
        return str(self.job(f"{OWNER}-{digest}")["model"])

    def deploy(self, model: str, name: str = NAME, *, ours: bool = True) -> str:
        """Create an active deployment, and return its ARN."""
        tags = {OWNER_TAG: OWNER, DIGEST_TAG: DIGEST} if ours else {}
        made = self.bedrock.create_custom_model_deployment(
            modelDeploymentName=name, modelArn=model, tags=bedrock_tags(tags)
        )
        self.server.advance(HOUR)
        return str(made["customModelDeploymentArn"])
