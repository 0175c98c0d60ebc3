"""Removing what no release needs, safely at any time and from any caller.

No Catch of a state machine runs when an execution is stopped, times out or reaches its history's limit, so
cleaning up is nobody's last step: this code runs after a failure, on the state machine's status events, every
hour, and when the stack is deleted. It only ever looks at what carries this owner's name and tag.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aws_lambda_powertools import Logger

from shared import deployments, models
from shared.errors import or_none
from shared.metrics import count
from shared.releases import FAILED, LIVE, RETIRED, Releases
from shared.routes import Route

# An execution is visible a moment after StartExecution answers (Step Functions is eventually consistent).
START_GRACE_SECONDS = 900
_OPEN = frozenset({"RUNNING", "PENDING_REDRIVE"})

logger = Logger(child=True)


@dataclass
class Sweep:
    """What a sweep did: ARNs removed, ARNs that can only be removed later, ARNs kept and why."""

    removed: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweeper:
    """Knows what to keep. `keep_releases` counts good releases beyond the live one."""

    bedrock: Any
    stepfunctions: Any
    releases: Releases
    owner: str
    keep_releases: int
    retain_models: bool
    now: Callable[[], float] = time.time

    def sweep(self) -> Sweep:
        """Remove deployments and models that neither the route, a running release, the declared release
        nor the number of kept releases needs."""
        self._end_abandoned()
        found_deployments = list(deployments.owned(self.bedrock, self.owner))
        found_models = list(models.owned(self.bedrock, self.owner))
        # Read after the lists: what is promoted meanwhile is in the route or still running, so it is kept.
        needed = self._needed(self.releases.route())
        declared = self.releases.declared()
        result = Sweep()
        for digest, deployment in found_deployments:
            arn = deployment["customModelDeploymentArn"]
            if digest in needed:
                result.kept[arn] = needed[digest]
            else:
                self._note(result, arn, gone=deployments.delete(self.bedrock, arn))
        for digest, model in found_models:
            arn = model["modelArn"]
            # The declared digest's model belongs to the job's resource, even when the gate refused it: it
            # cost money to train, and a changed gate may still take it.
            reason = needed.get(digest) or ("declared by the stack" if digest == declared else None)
            if self.retain_models or reason:
                result.kept[arn] = reason or "retention.models = retain"
            elif models.users(self.bedrock, arn):
                result.waiting.append(arn)
            else:
                self._note(result, arn, gone=models.delete(self.bedrock, arn))
        logger.info("swept", removed=result.removed, waiting=result.waiting, kept=result.kept)
        return result

    def clear(self) -> Sweep:
        """Remove every deployment and model of this owner: the stack is being deleted."""
        result = Sweep()
        for _, deployment in deployments.owned(self.bedrock, self.owner):
            arn = deployment["customModelDeploymentArn"]
            self._note(result, arn, gone=deployments.delete(self.bedrock, arn))
        if not self.retain_models and not result.waiting:
            for _, model in models.owned(self.bedrock, self.owner):
                arn = model["modelArn"]
                if models.users(self.bedrock, arn):
                    result.kept[arn] = "in use by a throughput"
                else:
                    self._note(result, arn, gone=models.delete(self.bedrock, arn))
        logger.info("cleared", removed=result.removed, waiting=result.waiting, kept=result.kept)
        return result

    def _needed(self, route: Route) -> dict[str, str]:
        """Digest to reason, for every release whose endpoint and model must stay."""
        needed = {digest: "named by the route" for digest in route.releases()}
        known = list(self.releases.all())
        for release in known:
            if not release.is_final:
                needed.setdefault(release.digest, "its release is running")
        good = sorted(
            (
                release
                for release in known
                if release.state in {LIVE, RETIRED} and release.digest not in needed
            ),
            key=lambda release: release.updated_at,
            reverse=True,
        )
        for release in good[: self.keep_releases]:
            needed[release.digest] = "kept for rollback"
        return needed

    def _end_abandoned(self) -> None:
        """Give releases whose execution was stopped, timed out or vanished their final state."""
        for release in self.releases.all():
            if release.is_final or not release.execution:
                continue
            execution = or_none_execution(self.stepfunctions, release.execution)
            status = execution["status"] if execution else "gone"
            young = self.now() - release.started_at < START_GRACE_SECONDS
            if status in _OPEN or (execution is None and young):
                continue
            reason = f"its execution is {status}: {release.execution}"
            if self.releases.transition(release.digest, FAILED, reason):
                count("FailedReleases", self.owner)
                self.releases.drop_from_route(release.digest, f"release {release.digest}: {reason}")

    @staticmethod
    def _note(result: Sweep, arn: str, *, gone: bool) -> None:
        (result.removed if gone else result.waiting).append(arn)


def or_none_execution(stepfunctions: Any, arn: str) -> dict[str, Any] | None:
    """DescribeExecution's answer, or None where there is no such execution."""
    try:
        return or_none(stepfunctions.describe_execution, executionArn=arn)
    except stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def stop_execution(stepfunctions: Any, arn: str, cause: str) -> bool:
    """Stop an execution if it runs; True once it is closed. Call again until then."""
    execution = or_none_execution(stepfunctions, arn)
    if execution is None or execution["status"] not in _OPEN:
        return True
    stepfunctions.stop_execution(executionArn=arn, error="Superseded", cause=cause)
    return False
