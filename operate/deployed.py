"""A deployed environment's releases: the table, and the services that know more of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.release.rollout import Rollout
from distilled_router.release.table import Release, Releases
from local import status
from local.state import ENVIRONMENT, State
from operate.aws import Aws
from operate.errors import LocalError
from rollout.canary import CanaryAnalysis
from stacks import settings


@dataclass(frozen=True)
class Known:
    """A release, and what its evaluation left in its item for people: scores as JSON, the report's URI."""

    release: Release
    scores: str = ""
    report: str = ""


@dataclass(frozen=True)
class Deployed:
    """One environment as it is deployed. `owner` is the name that everything of it begins with."""

    environment: str
    owner: str
    keep_releases: int
    bedrock: Any
    stepfunctions: Any
    table: Any
    now: Callable[[], float] = time.time

    @property
    def releases(self) -> Releases:
        """The releases table."""
        return Releases(self.table, self.now)

    def known(self) -> list[Known]:
        """Every release, the newest attempt first.

        Raises:
            LocalError: No release has begun yet.
        """
        found = [
            Known(Release.from_item(item), str(item.get("scores", "")), str(item.get("report", "")))
            for item in self._items()
            if str(item["id"]).startswith("release@")
        ]
        if not found:
            raise LocalError(
                f"No release has begun yet in {self.owner}.",
                advice=f"{_deploy(self.environment)} begins one.",
            )
        return sorted(found, key=lambda known: known.release.started_at, reverse=True)

    def _items(self) -> Iterator[Mapping[str, Any]]:
        pages = self.table.meta.client.get_paginator("scan").paginate(
            TableName=self.table.name, ConsistentRead=True
        )
        for page in pages:
            yield from page["Items"]


def deployed(name: str, state: State) -> Deployed:
    """Find an environment's releases: in the local system, or in AWS with the caller's own credentials.

    Raises:
        LocalError: The local system does not run; no credentials, no access, no such stack, or no table yet.
    """
    chosen, aws = _environment(name, state)
    stack = f"{chosen.owner}-release"
    try:
        table = _table_name(aws, stack)
    except (BotoCoreError, ClientError) as error:
        raise LocalError(
            f"The stack {stack} can't be read in {chosen.region}: {error}",
            advice=f"Check that {_deploy(name)} was run{_access(name)}.",
        ) from error
    if table is None:
        raise LocalError(f"The stack {stack} has no releases table yet.", advice=f"{_deploy(name)} makes it.")
    return Deployed(
        environment=name,
        owner=chosen.owner,
        keep_releases=chosen.rollout.keep_releases,
        bedrock=aws.bedrock,
        stepfunctions=aws.stepfunctions,
        table=aws.dynamodb.Table(table),
    )


def watch(name: str, state: State) -> CanaryAnalysis:
    """Watches the requests of an environment's releases by its settings. Asks no probes: those are billed to
    the release that they judge.

    Raises:
        LocalError: As `deployed`.
    """
    chosen, aws = _environment(name, state)
    return CanaryAnalysis(aws.cloudwatch, chosen.owner, Rollout.of(chosen.rollout.watched()))


def _environment(name: str, state: State) -> tuple[settings.Settings, Aws]:
    if name == ENVIRONMENT:
        return settings.load(name, state.environments), Aws(status.variables(state))
    chosen = settings.load(name)
    return chosen, Aws.of_account(chosen.region)


def _table_name(aws: Aws, stack: str) -> str | None:
    """The releases table, which is there before the stack has outputs."""
    pages = aws.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = (item for page in pages for item in page["StackResourceSummaries"])
    tables = (item for item in resources if item["ResourceType"] == "AWS::DynamoDB::Table")
    return next((item.get("PhysicalResourceId") for item in tables), None)


def _access(name: str) -> str:
    return "" if name == ENVIRONMENT else ", and that this shell has credentials of its account"


def _deploy(name: str) -> str:
    return "`make local`" if name == ENVIRONMENT else f"`make deploy ENV={name}`"


def endpoint_name(endpoint: str) -> str:
    """What an endpoint's ARN says: `throughput <id>`, `on demand`, or nothing."""
    if not endpoint:
        return ""
    return f"throughput {endpoint.rpartition('/')[2]}" if ":provisioned-model/" in endpoint else "on demand"


def duration(seconds: float) -> str:
    """A time span as people say it, in two units at most."""
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
