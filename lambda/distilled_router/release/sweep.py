"""Remove deployments, throughput, models and jobs that no release needs.

No Catch of a state machine runs when an execution is stopped, times out or reaches its history limit, so
cleaning up can't be the last step of an execution alone. This code is safe at any time and from any caller:
it runs after a failure, on the state machine's status events, every hour, and when the stack is deleted. It
touches only resources with this owner's name and tag.
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

# StartExecution is eventually consistent: an execution may not be found in its first moments.
START_GRACE_SECONDS = 900

logger = Logger(child=True)


@dataclass
class Sweep:
    """The result of a sweep: ARNs removed, ARNs to remove later, and ARNs kept, with the reason."""

    removed: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"removed {len(self.removed)}, to be removed later {len(self.waiting)}"


@dataclass(frozen=True)
class Sweeper:
    """Decides what to keep, and removes the rest.

    Attributes:
        bedrock, stepfunctions: clients.
        releases: the releases table.
        owner: whose resources these are.
        keep_releases: how many good releases to keep for rollback, besides the live one.
        retain_models: keep all models.
        throughput_name: name of the provisioned throughput in the settings; empty on demand.
        retain_throughput: keep all throughput.
        judge: the model that grades answers; empty where none does, and no evaluation job exists.
        now: returns epoch seconds.
    """

    bedrock: Any
    stepfunctions: Any
    releases: Releases
    owner: str
    keep_releases: int
    retain_models: bool
    throughput_name: str
    retain_throughput: bool
    judge: str = ""
    now: Callable[[], float] = time.time

    def sweep(self, *, failed: str = "") -> Sweep:
        """Stop evaluation jobs and remove deployments, throughput and models that nothing needs.

        The route, releases in progress and the releases kept for rollback need theirs. `failed` is the digest
        of a release that has just failed, whose execution is still open.

        Models are the only resources here that cost money to create again. The declared digest's model stays
        even if the gate refused it: it belongs to its job's resource, and a changed gate may accept it. The
        model of the release that started last stays, too: after a refusal, CloudFormation may roll back the
        release stack to another digest while the job's stack keeps the new one.
        """
        self._end_abandoned()
        self._withdraw_orphans()
        found_deployments = list(deployments.owned(self.bedrock, self.owner))
        found_models = list(models.owned(self.bedrock, self.owner))
        found_throughput = list(throughput.owned(self.bedrock, self.owner))
        found_jobs = self._evaluation_jobs()
        # Read after the lists, and the route last: a release that goes live in between is found in progress
        # or in the route. A release that starts again in between is read once more before a deletion.
        known = list(self.releases.all())
        needed = self._needed(known, self.releases.effective_route())
        last = max((release.started_at for release in known), default=0)
        lent = {release.digest: "started last" for release in known if release.started_at == last}
        spared = dict(needed)
        if declared := self.releases.declared():
            spared.setdefault(declared, "declared by the stack")
        result = Sweep()
        self._stop_evaluation_jobs(result, found_jobs, known)
        for digest, deployment in found_deployments:
            arn = deployment["customModelDeploymentArn"]
            reason = needed.get(digest) or self._started_again(digest)
            if reason:
                result.kept[arn] = reason
            else:
                self._note(result, arn, gone=deployments.delete(self.bedrock, arn))
        self._sweep_throughput(result, found_throughput, [r for r in known if r.digest != failed])
        self._sweep_models(result, found_models, known, spared=spared, lent=lent)
        logger.info("swept", removed=result.removed, waiting=result.waiting, kept=result.kept)
        return result

    def clear(self, declared: str) -> Sweep:
        """Stop all evaluation jobs and remove all deployments and models of this owner: its stack is deleted.

        The declared digest's model is left to its job's resource, which CloudFormation deletes after this
        one: a release stack that is rolled back or created again must not cost another training.
        """
        result = Sweep()
        self._stop_evaluation_jobs(result, self._evaluation_jobs(), [])
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
        """Return the running jobs. Without a judge, the role may not list them."""
        return list(evaluation_jobs.running(self.bedrock, self.owner)) if self.judge else []

    def _stop_evaluation_jobs(
        self, result: Sweep, found: Sequence[Mapping[str, Any]], known: Sequence[Release]
    ) -> None:
        """Stop evaluation jobs that no attempt in progress waits for."""
        wanted = {evaluation_jobs.job_name(self.owner, release) for release in known if not release.is_final}
        for job in found:
            arn = job["jobArn"]
            if job["jobName"] in wanted:
                result.kept[arn] = "its release is in progress"
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
        """Remove the models of releases, except those in `spared`.

        A model without a release stays: a job's stack may be deployed, and its job done, long before the
        release that waits for it. A model in `lent` stays while its job's resource exists.
        """
        releases = {release.digest for release in known}
        # A stack names these by ARN: once deleted, they could not be declared again.
        adopted = {arn for one in known if one.is_adopted for arn in (one.source, one.model_arn)}
        for digest, model in found:
            arn = model["modelArn"]
            reason = "retention.models = retain" if self.retain_models else spared.get(digest)
            if not reason and digest in lent and not models.is_unclaimed(self.bedrock, arn):
                reason = lent[digest]
            if digest not in releases:
                reason = reason or "has no release"
            if arn in adopted:
                reason = reason or "adopted by a release"
            reason = reason or self._started_again(digest)
            users = [] if reason else models.users(self.bedrock, arn)
            if reason or users:
                result.kept[arn] = reason or f"in use by {', '.join(users)}"
            else:
                self._note(result, arn, gone=models.delete(self.bedrock, arn))

    def _sweep_throughput(
        self, result: Sweep, found: Sequence[Mapping[str, Any]], known: Sequence[Release]
    ) -> None:
        """Remove throughput that gets no requests and that no release moves to, since it is paid by the hour.

        Throughput in the settings is removed, too, if it could not be moved to the live release: it would
        serve nothing until the next deployment.
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
        """Return why throughput must stay, or None.

        A release is live before it buys or moves throughput, so it counts as in progress until its execution
        has ended. The route is read after that: an execution that has ended has moved the route.
        """
        wanted = name == self.throughput_name
        if any((wanted or release.throughput == name) and self._is_open(release) for release in known):
            return "a release is moving to it"
        route = self.releases.effective_route()
        if any(share.endpoint == arn for share in route.shares):
            return "named by the route"
        live = [release for release in known if release.state == LIVE]
        if wanted and live and not route.shares and max(live, key=lambda r: r.updated_at).endpoint == arn:
            # An operator switched it off by an empty route, and may switch it on again.
            return "went live last"
        return None

    def _is_open(self, release: Release) -> bool:
        """Return whether an execution still works on the release, which may be live already."""
        if release.state == LIVE:
            return executions.is_open(executions.find(self.stepfunctions, release.execution))
        return not release.is_final

    def _needed(self, known: Sequence[Release], route: Route) -> dict[str, str]:
        """Return why endpoint and model must stay, by digest, for every release that needs them."""
        needed = {release.digest: "its release is in progress" for release in known if not release.is_final}
        needed |= dict.fromkeys(route.digests(), "named by the route")
        live = [release for release in known if release.state == LIVE]
        if live:
            # An operator who switches it off by an empty route may switch it on again.
            needed.setdefault(max(live, key=lambda release: release.updated_at).digest, "went live last")
        good = [
            release for release in known if release.state in {LIVE, RETIRED} and release.digest not in needed
        ]
        good.sort(key=lambda release: release.updated_at, reverse=True)
        return needed | {release.digest: "kept for rollback" for release in good[: self.keep_releases]}

    def _started_again(self, digest: str) -> str | None:
        release = self.releases.get(digest)
        return "its release has started again" if release and not release.is_final else None

    def _end_abandoned(self) -> None:
        """Fail releases whose execution was stopped, timed out or disappeared."""
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

    def _withdraw_orphans(self) -> None:
        """Withdraw candidates' shares of releases that have ended, in case the step that ended them crashed.

        An expired share gets no requests, but prevents its endpoint from being removed.
        """
        for share in self.releases.effective_route().shares:
            if share.expires_at is None:
                continue
            release = self.releases.get(share.digest)
            # A gradual rollback raises the share of a retired release. If it dies, the share expires.
            rolls_back = release and release.state == RETIRED and share.counts(self.now())
            if release is None or (release.is_final and not rolls_back):
                self.releases.withdraw(share.digest, f"release {share.digest} has ended")

    @staticmethod
    def _note(result: Sweep, arn: str, *, gone: bool) -> None:
        (result.removed if gone else result.waiting).append(arn)
