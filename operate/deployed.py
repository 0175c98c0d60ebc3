"""The releases of a deployed environment: their table, and the services that know more about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.table import Release, Releases
from operate.aws import Aws
from operate.environment import Environment
from operate.errors import OperateError
from rollout.canary import CanaryAnalysis

# Each poll is a scan and up to four calls; Bedrock's control plane is not asked more often than this.
POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Known:
    """A release, with its scores as JSON and the URI of its report, if it has been evaluated."""

    release: Release
    scores: str = ""
    report: str = ""


@dataclass(frozen=True)
class Deployed:
    """A deployed environment: its releases table and its AWS clients.

    `owner` begins the names of all its resources. `deploy_command` is for messages.
    """

    environment: str
    owner: str
    keep_releases: int
    bedrock: Any
    stepfunctions: Any
    table: Any
    now: Callable[[], float] = time.time
    deploy_command: str = "make deploy"
    poll_seconds: float = POLL_SECONDS

    @property
    def releases(self) -> Releases:
        """The releases table."""
        return Releases(self.table, self.owner, self.now)

    def known(self) -> list[Known]:
        """Return every release, the newest attempt first.

        Raises:
            OperateError: No release has begun yet.
        """
        found = [
            Known(Release.from_item(item), str(item.get("scores", "")), str(item.get("report", "")))
            for item in self._items()
            if str(item["id"]).startswith(f"{self.owner}/release@")
        ]
        if not found:
            raise OperateError(
                f"No release has begun yet in {self.owner}.",
                advice=f"`{self.deploy_command}` begins one.",
            )
        return sorted(found, key=lambda known: known.release.started_at, reverse=True)

    def _items(self) -> Iterator[Mapping[str, Any]]:
        pages = self.table.meta.client.get_paginator("scan").paginate(
            TableName=self.table.name, ConsistentRead=True
        )
        for page in pages:
            yield from page["Items"]


def deployed(at: Environment) -> Deployed:
    """Find the releases of an environment.

    Raises:
        OperateError: No credentials, no access, no such stack, or no table yet.
    """
    stack = f"{at.settings.owner}-release"
    try:
        table = table_name(at.aws, stack)
    except (BotoCoreError, ClientError) as error:
        raise OperateError(
            f"The stack {stack} can't be read in {at.settings.region}: {error}", advice=at.access_advice
        ) from error
    if table is None:
        raise OperateError(
            f"The stack {stack} has no releases table yet.", advice=f"`{at.deploy_command}` creates it."
        )
    return Deployed(
        environment=at.name,
        owner=at.settings.owner,
        keep_releases=at.settings.rollout.keep_releases,
        bedrock=at.aws.bedrock,
        stepfunctions=at.aws.stepfunctions,
        table=at.aws.dynamodb.Table(table),
        deploy_command=at.deploy_command,
        poll_seconds=float(at.variables.get("WATCH_SECONDS", POLL_SECONDS)),
    )


def canary_analysis(at: Environment) -> CanaryAnalysis:
    """Return the canary analysis of an environment's requests, with the limits of its settings.

    It sends no probes: those are billed to the release that they check.
    """
    rollout = Rollout.of(at.settings.rollout.to_function())
    gate = Gate(**at.settings.gate.to_function())
    return CanaryAnalysis(at.aws.cloudwatch, at.settings.owner, rollout, gate)


def table_name(aws: Aws, stack: str) -> str | None:
    """Return the name of the releases table, which exists before the stack has outputs."""
    pages = aws.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = (item for page in pages for item in page["StackResourceSummaries"])
    tables = (item for item in resources if item["ResourceType"] == "AWS::DynamoDB::Table")
    return next((item.get("PhysicalResourceId") for item in tables), None)


def endpoint_name(endpoint: str) -> str:
    """Return `throughput <id>` or `on demand` for the ARN of a model endpoint; nothing for an empty one."""
    if not endpoint:
        return ""
    return f"throughput {endpoint.rpartition('/')[2]}" if ":provisioned-model/" in endpoint else "on demand"


def duration(seconds: float) -> str:
    """Return a time span as people say it, in two units at most."""
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
