"""Removing what no release needs, safely at any time and from any caller.

No Catch of a state machine runs when an execution is stopped, times out or reaches its history's limit, so
cleaning up is nobody's last step: this code runs after a failure, on the state machine's status events, every
hour, and when the stack is deleted. It only ever looks at what carries this owner's name and tag.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws import executions
from distilled_router.aws.errors import ResourceError
from distilled_router.aws.metrics import count
from distilled_router.bedrock import deployments, evaluation_jobs, models, throughput
from distilled_router.release.route import Route
from distilled_router.release.table import FAILED, LIVE, RETIRED, Release, Releases

# An execution is visible a moment after StartExecution answers (Step Functions is eventually consistent).
START_GRACE_SECONDS = 900

logger = Logger(child=True)


@dataclass
class Sweep:
    """What a sweep did: ARNs removed, ARNs that can only be removed later, ARNs kept and why."""

    removed: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweeper:
    """Knows what to keep. `keep_releases` counts good releases beyond the live one; `keep_throughput` names
    the provisioned throughput that the settings want, and is empty where they want none. With `judges`,
    releases make evaluation jobs."""

    bedrock: Any
    stepfunctions: Any
    releases: Releases
    owner: str
    keep_releases: int
    retain_models: bool
    keep_throughput: str
    retain_throughput: bool
    judges: bool = False
    now: Callable[[], float] = time.time

    def sweep(self, *, failed: str = "") -> Sweep:
        """Stop evaluation jobs, and remove deployments, throughput and models, that neither the route, a
        running release nor the number of kept releases needs. `failed` is the release whose last step failed
        just now: its execution runs still, on the way down.

        Models are the one thing here that costs money to make again. The declared digest's stays, even after
        the gate refused it, so the failure path's sweep never removes it either: it is its job's resource's,
        and a changed gate may still take it. So does that of the release begun last, which is another one
        where CloudFormation took the serving stack back after a refusal, while the job's stack went on.
        """
        self._end_abandoned()
        self._take_back_orphans()
        found_deployments = list(deployments.owned(self.bedrock, self.owner))
        found_models = list(models.owned(self.bedrock, self.owner))
        found_throughput = list(throughput.owned(self.bedrock, self.owner))
        found_jobs = self._evaluation_jobs()
        # Read after the lists, and the route last: a release on its way that goes live in between is found
        # running, or in the route. One that is begun again in between is looked at once more before a delete.
        known = list(self.releases.all())
        needed = self._needed(known, self.releases.effective_route())
        last = max((release.started_at for release in known), default=0)
        lent = {release.digest: "begun last" for release in known if release.started_at == last}
        spared = dict(needed)
        if declared := self.releases.declared():
            spared.setdefault(declared, "declared by the stack")
        result = Sweep()
        self._stop_judges(result, found_jobs, known)
        for digest, deployment in found_deployments:
            arn = deployment["customModelDeploymentArn"]
            reason = needed.get(digest) or self._begun_again(digest)
            if reason:
                result.kept[arn] = reason
            else:
                self._note(result, arn, gone=deployments.delete(self.bedrock, arn))
        self._sweep_throughput(result, found_throughput, [r for r in known if r.digest != failed])
        self._sweep_models(result, found_models, known, spared=spared, lent=lent)
        logger.info("swept", removed=result.removed, waiting=result.waiting, kept=result.kept)
        return result

    def clear(self, declared: str) -> Sweep:
        """Stop every evaluation job and remove every deployment of this owner, and its releases' models: the
        stack is being deleted.

        The declared digest's model is left to its job's resource, which CloudFormation deletes after this
        one: a serving stack that is rolled back or made anew must not cost another training.
        """
        result = Sweep()
        self._stop_judges(result, self._evaluation_jobs(), [])
        for _, deployment in deployments.owned(self.bedrock, self.owner):
            arn = deployment["customModelDeploymentArn"]
            self._note(result, arn, gone=deployments.delete(self.bedrock, arn))
        self._sweep_throughput(result, list(throughput.owned(self.bedrock, self.owner)), [])
        if not result.waiting:
            found = list(models.owned(self.bedrock, self.owner))
            lent = {declared: "declared by the stack"}
            self._sweep_models(result, found, list(self.releases.all()), spared={}, lent=lent)
        logger.info("cleared", removed=result.removed, waiting=result.waiting, kept=result.kept)
        return result

    def _evaluation_jobs(self) -> list[Mapping[str, Any]]:
        """Those that run; where no judge is set, nobody may list them."""
        return list(evaluation_jobs.running(self.bedrock, self.owner)) if self.judges else []

    def _stop_judges(
        self, result: Sweep, found: Sequence[Mapping[str, Any]], known: Sequence[Release]
    ) -> None:
        """Stop evaluation jobs that no running attempt waits for; they are gone once they have stopped."""
        wanted = {evaluation_jobs.job_name(self.owner, release) for release in known if not release.is_final}
        for job in found:
            arn = job["jobArn"]
            if job["jobName"] in wanted:
                result.kept[arn] = "its release is running"
                continue
            if job["status"] == evaluation_jobs.IN_PROGRESS:
                evaluation_jobs.stop(self.bedrock, arn)
            self._note(result, arn, gone=False)

    def _sweep_models(
        self,
        result: Sweep,
        found: Sequence[tuple[str, Mapping[str, Any]]],
        known: Sequence[Release],
        *,
        spared: Mapping[str, str],
        lent: Mapping[str, str],
    ) -> None:
        """Remove models of releases, but for those spared, and those that no release knows: a job's stack may
        be deployed, and its job done, long before the release that waits for it. Those that are `lent` are
        left to their job's resource, while there is one."""
        releases = {release.digest for release in known}
        # Named by its ARN in somebody's stack: gone, it could not be declared again.
        adopted = {arn for one in known if one.is_adopted for arn in (one.source, one.model_arn)}
        for digest, model in found:
            arn = model["modelArn"]
            reason = "retention.models = retain" if self.retain_models else spared.get(digest)
            if not reason and digest in lent and not models.is_closed(self.bedrock, arn):
                reason = lent[digest]
            if digest not in releases:
                reason = reason or "no release knows it"
            if arn in adopted:
                reason = reason or "adopted by a release"
            reason = reason or self._begun_again(digest)
            users = [] if reason else models.users(self.bedrock, arn)
            if reason or users:
                result.kept[arn] = reason or f"in use by {', '.join(users)}"
            else:
                self._note(result, arn, gone=models.delete(self.bedrock, arn))

    def _sweep_throughput(
        self, result: Sweep, found: Sequence[Mapping[str, Any]], known: Sequence[Release]
    ) -> None:
        """Remove throughput that nothing is routed to, nor on its way to: it is paid by the hour, used or
        not.

        Whether the settings want it is not enough. Where it could not be moved to the live release, it serves
        nobody until the next deployment.
        """
        for item in found:
            name, arn = item["provisionedModelName"], item["provisionedModelArn"]
            reason = self._needs_throughput(name, arn, known)
            if not reason and self.retain_throughput:
                reason = "retention.throughput = retain"
            if reason:
                result.kept[arn] = reason
                continue
            try:
                gone = throughput.delete(
                    self.bedrock, arn, self.owner, now=datetime.fromtimestamp(self.now(), UTC)
                )
            except ResourceError as error:
                result.kept[arn] = str(error)
            else:
                self._note(result, arn, gone=gone)

    def _needs_throughput(self, name: str, arn: str, known: Sequence[Release]) -> str | None:
        """Why throughput must stay, if it must.

        A release is live before it buys throughput or moves it, so until its execution has ended it counts as
        on its way. The route is read after that was seen: an execution that has ended has moved the route.
        """
        wanted = name == self.keep_throughput
        if any((wanted or release.throughput == name) and self._goes_on(release) for release in known):
            return "a release is on its way to it"
        route = self.releases.effective_route()
        if any(share.endpoint == arn for share in route.shares):
            return "named by the route"
        live = [release for release in known if release.state == LIVE]
        if wanted and live and not route.shares and max(live, key=lambda r: r.updated_at).endpoint == arn:
            # Switched off by hand, by an empty route, to be switched on again.
            return "went live last"
        return None

    def _goes_on(self, release: Release) -> bool:
        """Whether an execution still works on the release, which may be live already."""
        if release.state == LIVE:
            return executions.is_open(executions.find(self.stepfunctions, release.execution))
        return not release.is_final

    def _needed(self, known: Sequence[Release], route: Route) -> dict[str, str]:
        """Digest to reason, for every release whose endpoint and model must stay."""
        needed = {release.digest: "its release is running" for release in known if not release.is_final}
        needed |= dict.fromkeys(route.digests(), "named by the route")
        live = [release for release in known if release.state == LIVE]
        if live:
            # Whoever switches it off by hand, by an empty route, wants to switch it on again.
            needed.setdefault(max(live, key=lambda release: release.updated_at).digest, "went live last")
        good = [
            release for release in known if release.state in {LIVE, RETIRED} and release.digest not in needed
        ]
        good.sort(key=lambda release: release.updated_at, reverse=True)
        return needed | {release.digest: "kept for rollback" for release in good[: self.keep_releases]}

    def _begun_again(self, digest: str) -> str | None:
        release = self.releases.get(digest)
        return "its release has begun again" if release and not release.is_final else None

    def _end_abandoned(self) -> None:
        """Give releases whose execution was stopped, timed out or vanished their final state."""
        for release in self.releases.all():
            if release.is_final or not release.execution:
                continue
            execution = executions.find(self.stepfunctions, release.execution)
            young = self.now() - release.started_at < START_GRACE_SECONDS
            if executions.is_open(execution) or (execution is None and young):
                continue
            reason = f"its execution is {execution['status'] if execution else 'gone'}: {release.execution}"
            if self.releases.transition(release.digest, FAILED, reason, of_attempt=release.attempt):
                count("FailedReleases", self.owner)

    def _take_back_orphans(self) -> None:
        """Take back partial shares of releases that have ended: whoever ended them may have died before it.
        An expired share gets no requests, but keeps its endpoint from being removed."""
        for share in self.releases.effective_route().shares:
            if share.expires_at is None:
                continue
            release = self.releases.get(share.digest)
            # A retired one rises by a rollback, step by step; what that leaves behind expires.
            rises = release and release.state == RETIRED and share.counts(self.now())
            if release is None or (release.is_final and not rises):
                self.releases.withdraw(share.digest, f"release {share.digest} has ended")

    @staticmethod
    def _note(result: Sweep, arn: str, *, gone: bool) -> None:
        (result.removed if gone else result.waiting).append(arn)
