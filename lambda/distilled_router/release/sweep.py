"""Remove throughput, evaluation jobs, deployments and models that no release needs.

No Catch of a state machine runs when an execution is stopped, times out or reaches its history limit, so
cleaning up can't be the last step of an execution alone. This code is safe at any time and from any caller:
it runs after a failure, on the state machine's status events, every hour, and when the stack is deleted.

It removes only what the release's resource claims (`bedrock.ownership`). What another resource claims, too,
such as the model of a job that a stack declares, stays until that claim is gone. What costs by the hour goes
first. A refusal does not keep it from the rest; all refusals are raised together at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws import executions
from distilled_router.aws.errors import NotYetError, ResourceError, code, described, is_transient
from distilled_router.aws.metrics import count
from distilled_router.bedrock import deployments, evaluation_jobs, models, ownership, throughput
from distilled_router.bedrock.naming import release_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.claimed import Claimed, Found
from distilled_router.release.needs import AHEAD_SECONDS, DAMAGED, Needs, in_progress
from distilled_router.release.table import (
    FAILED,
    RETIRED,
    ROLLING_OUT,
    Release,
    Releases,
    RouteChangedError,
)

# StartExecution is eventually consistent: an execution may not be found in its first moments.
START_GRACE_SECONDS = 900
RETAINED = "retention.throughput = retain"

type _Delete = Callable[[Found], bool]

logger = Logger(child=True)


@dataclass
class Sweep:
    """The result of a sweep.

    Attributes:
        leaving: the release's resource is being deleted, so that it gives up its claims.
        removed, waiting: ARNs that are gone, and ARNs to remove later.
        kept: the reason for each ARN that stays.
        refused: the error for each ARN, or list of resources, where AWS refused a call.
        lasting: those of `refused` that repeating the call does not mend.
        unrouted: ARNs of throughput that is billed and gets no requests.
    """

    leaving: bool = False
    removed: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unrouted: list[str] = field(default_factory=list)
    lasting: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"removed {len(self.removed)}, to be removed later {len(self.waiting)}"

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Record an error of AWS, and continue."""
        try:
            yield
        except (ClientError, BotoCoreError, ResourceError, RouteChangedError) as error:
            text = described(error) if isinstance(error, ClientError | BotoCoreError) else str(error)
            self.refused[what] = text
            temporary = is_transient(error) or isinstance(error, NotYetError | RouteChangedError)
            if not temporary:
                self.lasting.append(what)

    def note(self, arn: str, *, gone: bool) -> None:
        """Record whether a resource is gone, or is to be removed later."""
        (self.removed if gone else self.waiting).append(arn)

    def check(self) -> None:
        """Raise all refusals together: as NotYetError if every one is temporary, else as ResourceError."""
        if self.refused:
            told = "; ".join(f"{what}: {why}" for what, why in self.refused.items())
            kind = ResourceError if self.lasting else NotYetError
            raise kind(f"{len(self.refused)} calls were refused, everything else was done. {told}")


@dataclass(frozen=True)
class _Inventory:
    """What the release's resource claims."""

    throughput: Sequence[Found]
    jobs: Sequence[Found]
    deployments: Sequence[Found]
    models: Sequence[Found]


@dataclass(frozen=True)
class Sweeper:
    """Decides what to keep, and removes the rest.

    Attributes:
        bedrock, stepfunctions: clients.
        releases: the releases of one owner.
        claimant: the release's custom resource.
        keep_releases: how many good releases to keep for rollback, besides the live one.
        retain_models: keep all models.
        throughput_name: name of the provisioned throughput in the settings; empty on demand.
        retain_throughput: keep all throughput.
        now: returns epoch seconds.
    """

    bedrock: Any
    stepfunctions: Any
    releases: Releases
    claimant: Claimant
    keep_releases: int
    retain_models: bool
    throughput_name: str
    retain_throughput: bool
    now: Callable[[], float] = time.time

    @property
    def owner(self) -> str:
        """Return the owner of the releases."""
        return self.releases.owner

    def sweep(self, *, failed: str = "") -> Sweep:
        """Stop evaluation jobs and remove throughput, deployments and models that nothing needs.

        The route, releases in progress and the releases kept for rollback need theirs. `failed` is the digest
        of a release that has just failed, whose execution is still open. Emits the number of throughput that
        is billed without being routed to as a metric, unless it is 0.

        Raises ResourceError with all refusals, after the rest is done.
        """
        result = Sweep()
        self._end_abandoned(result)
        with result.trying("the route"):
            self._withdraw_orphans()
        found = self._inventory(result)
        # Read after the lists, and the route last: a release that goes live in between is found in progress
        # or in the route. A release that starts again in between is read once more before a deletion.
        known = list(self.releases.all())
        needed = self._needs.by_digest(known, self.releases.effective_route())
        self._sweep_throughput(result, found.throughput, [r for r in known if r.digest != failed])
        self._stop_evaluation_jobs(result, found.jobs, known)
        for item in found.deployments:
            reason = needed.get(item.digest) or self._needed_since(item.digest)
            self._remove(result, item, reason, self._delete_deployment)
        self._sweep_models(result, found.models, known, needed)
        if result.unrouted:  # a metric is billed by the hour in which it is written
            count("UnroutedThroughput", self.owner, len(result.unrouted))
        self._log("swept", result)
        result.check()
        return result

    def clear(self) -> Sweep:
        """Remove all that the release's resource claims: it is being deleted.

        What is kept loses the claim, since nobody would ever remove it. Lists lag behind, so that what the
        table knows is removed as well.

        Raises ResourceError with all refusals, after the rest is done.
        """
        result = Sweep(leaving=True)
        found = self._inventory(result, also_known=True)
        for item in found.throughput:
            self._clear_throughput(result, item)
        self._stop_evaluation_jobs(result, found.jobs, [])
        for item in found.deployments:
            self._remove(result, item, None, self._delete_deployment)
        if not result.waiting:
            self._sweep_models(result, found.models, list(self.releases.all()), {})
        self._log("cleared", result)
        result.check()
        return result

    def hand_over(self, to: Claimant) -> None:
        """Pass all claims on to another resource, which declares the same owner's releases now.

        Raises ResourceError with all refusals, after the rest is done.
        """
        result = Sweep()
        found = self._inventory(result, also_known=True)
        for item in (*found.throughput, *found.jobs, *found.deployments, *found.models):
            if not self.claimant.holds(item.tags):
                continue
            with result.trying(item.arn):
                ownership.claim(self.bedrock, item.arn, to)
                ownership.release(self.bedrock, item.arn, self.claimant)
        result.check()

    def take_over(self, of: Claimant) -> None:
        """Claim what another resource claims, which declared the same owner's releases before."""
        for item in list(Claimed(self.bedrock, self.owner, of).everything()):
            if not self.claimant.holds(item.tags):
                ownership.claim(self.bedrock, item.arn, self.claimant)

    @property
    def _needs(self) -> Needs:
        return Needs(self.releases, self.stepfunctions, self.keep_releases, self.throughput_name, self.now)

    @property
    def _claimed(self) -> Claimed:
        return Claimed(self.bedrock, self.owner, self.claimant)

    def _inventory(self, result: Sweep, *, also_known: bool = False) -> _Inventory:
        """Return what is claimed; a list that can't be read is empty."""
        claimed, releases = self._claimed, list(self.releases.all()) if also_known else []
        kinds = {
            "throughput": (claimed.throughput, _known_throughput(releases)),
            "evaluation jobs": (claimed.evaluation_jobs, ()),
            "deployments": (claimed.deployments, self._known_deployments(releases)),
            "models": (claimed.models, [release.model_arn for release in releases]),
        }
        found: dict[str, list[Found]] = {}
        for kind, (read, known) in kinds.items():
            found[kind] = []
            with result.trying(f"list of {kind}"):
                found[kind] += read()
                found[kind] += self._unlisted(kind, known, found[kind])
        return _Inventory(*found.values())

    def _known_deployments(self, releases: Sequence[Release]) -> list[str]:
        return [release_name(self.owner, release.digest) for release in releases]

    def _unlisted(self, kind: str, known: Sequence[str], listed: Sequence[Found]) -> list[Found]:
        """Return resources that the table knows by name or ARN, and the list lacks."""
        read, arn_field, name_field = {
            "throughput": (throughput.find, "provisionedModelArn", "provisionedModelName"),
            "deployments": (deployments.find, "customModelDeploymentArn", "modelDeploymentName"),
            "models": (models.find, "modelArn", "modelName"),
        }.get(kind, (None, "", ""))
        seen, found = {item.arn for item in listed}, list[Found]()
        for name in sorted({name for name in known if name}):
            described = _known(read, self.bedrock, name) if read else None
            if described is None or described[arn_field] in seen:
                continue
            arn = str(described[arn_field])
            seen.add(arn)
            tags = ownership.read_tags(self.bedrock, arn) or {}
            if self.claimant.holds(tags):
                found.append(Found(arn, str(described.get(name_field, "")), "", tags, described))
        return found

    def _remove(self, result: Sweep, item: Found, reason: str | None, delete: _Delete) -> None:
        """Delete a resource unless there is a reason to keep it, or another resource claims it.

        The claim stays until the resource is gone or this release's resource is deleted. So an interrupted
        deletion is continued, and what loses its other claims is removed by a later sweep. If two gave up
        their claims at once, each could still see the other's, since Bedrock's reads lag.
        """
        with result.trying(item.arn):
            if reason:
                result.kept[item.arn] = reason
            elif self._is_shared(item, leaving=result.leaving):
                result.kept[item.arn] = "claimed by another resource"
            else:
                result.note(item.arn, gone=delete(item))

    def _is_shared(self, item: Found, *, leaving: bool) -> bool:
        """Return whether another resource claims it, too; with `leaving`, it then loses this claim."""
        tags = ownership.read_tags(self.bedrock, item.arn)
        # Tags that can't be read now do not mean that nobody else claims it.
        if self.claimant.may_remove(item.tags if tags is None else tags):
            return False
        return not (leaving and ownership.release(self.bedrock, item.arn, self.claimant))

    def _stop_evaluation_jobs(self, result: Sweep, found: Sequence[Found], known: Sequence[Release]) -> None:
        """Stop evaluation jobs that no attempt in progress waits for.

        The grading may have ended without its job. During the rollout nobody waits for one.
        """
        waiting = [release for release in known if not release.is_over and release.state != ROLLING_OUT]
        wanted = {evaluation_jobs.job_name(self.owner, release): in_progress(release) for release in waiting}
        for item in found:
            reason = wanted.get(item.name)
            self._remove(result, item, reason, self._stop_job)

    def _sweep_models(
        self,
        result: Sweep,
        found: Sequence[Found],
        known: Sequence[Release],
        needed: Mapping[str, str],
    ) -> None:
        """Remove models that no release needs."""
        # A stack names these by ARN: once deleted, they could not be declared again.
        adopted = {arn for one in known if one.is_adopted for arn in (one.source, one.model_arn)}
        for item in found:
            with result.trying(item.arn):
                reason = "retention.models = retain" if self.retain_models else needed.get(item.digest)
                if item.arn in adopted:
                    reason = reason or "adopted by a release"
                if not result.leaving:
                    reason = reason or self._needed_since(item.digest)
                if not reason:
                    users = self._users(item)
                    reason = f"in use by {', '.join(users)}" if users else None
                self._remove(result, item, reason, self._delete_model)
                if result.leaving and item.arn in result.kept:
                    ownership.release(self.bedrock, item.arn, self.claimant)

    def _sweep_throughput(self, result: Sweep, found: Sequence[Found], known: Sequence[Release]) -> None:
        """Remove throughput that gets no requests and that no release moves to, since it is paid by the hour.

        Throughput in the settings is removed, too, if it could not be moved to the live release: it would
        serve nothing until the next deployment.
        """
        for item in found:
            with result.trying(item.arn):
                reason = self._needs.of_throughput(item, known)
                if reason and reason != DAMAGED:
                    result.kept[item.arn] = reason
                    continue
                reason = reason or self._leaves_throughput(item)
                self._remove(result, item, reason, self._delete_throughput)
            if item.arn not in result.removed:
                result.unrouted.append(item.arn)

    def _leaves_throughput(self, item: Found) -> str | None:
        """Return why throughput that nothing needs stays, or None."""
        if not self.claimant.holds(item.tags):
            return "left on purpose, claimed by no resource, and billed until you delete it"
        return RETAINED if self.retain_throughput else throughput.committed(item.summary, self._at)

    def _clear_throughput(self, result: Sweep, item: Found) -> None:
        with result.trying(item.arn):
            if self.claimant.holds(item.tags):
                # Committed throughput is refused: with the release gone, nobody would delete it.
                reason = RETAINED if self.retain_throughput else None
                self._remove(result, item, reason, self._delete_throughput)
                if self.retain_throughput:
                    throughput.leave(self.bedrock, item.summary, self.claimant, self._at)

    def _delete_throughput(self, item: Found) -> bool:
        return throughput.delete(self.bedrock, item.arn, self.owner, now=self._at)

    def _users(self, model: Found) -> list[str]:
        """Return what uses a model, also its release's deployment that lists do not show yet."""
        listed = list(filter(self._exists, models.users(self.bedrock, model.arn)))
        own = deployments.find(self.bedrock, release_name(self.owner, model.digest)) if model.digest else None
        # One with this name may be of another attempt's model.
        found = [str(own["customModelDeploymentArn"])] if own and own["modelArn"] == model.arn else []
        return list(dict.fromkeys([*listed, *found]))

    def _exists(self, endpoint: str) -> bool:
        """Return whether an endpoint exists; lists show some for a while after their deletion."""
        find = throughput.find if throughput.is_throughput(endpoint) else deployments.find
        return find(self.bedrock, endpoint) is not None

    def _delete_deployment(self, item: Found) -> bool:
        return deployments.delete(self.bedrock, item.arn)

    def _delete_model(self, item: Found) -> bool:
        return models.delete(self.bedrock, item.arn)

    def _stop_job(self, item: Found) -> bool:
        """Stop an evaluation job. It ends later, and is then listed no more."""
        if item.summary["status"] != evaluation_jobs.STOPPING:
            evaluation_jobs.stop(self.bedrock, item.arn)
        return False

    @property
    def _at(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    def _needed_since(self, digest: str) -> str | None:
        """Return why endpoint and model must stay, if that began after the table was read."""
        release = self.releases.get(digest)
        if release and not release.is_final:
            return "its release has started again"
        is_routed = digest in self.releases.effective_route().digests()
        return "named by the route" if is_routed else None

    def _end_abandoned(self, result: Sweep) -> None:
        """Fail releases whose execution was stopped, timed out or disappeared."""
        for release in list(self.releases.all()):
            if not release.is_over and release.execution:
                with result.trying(release.execution):
                    self._end_if_abandoned(release)

    def _end_if_abandoned(self, release: Release) -> None:
        execution = executions.find(self.stepfunctions, release.execution)
        began = release.updated_at if release.is_reevaluated else release.started_at
        young = -AHEAD_SECONDS <= self.now() - began < START_GRACE_SECONDS
        if executions.is_open(execution) or (execution is None and young):
            return
        reason = f"its execution is {execution['status'] if execution else 'gone'}: {release.execution}"
        if release.is_reevaluated:
            ended = self.releases.end_again(release.digest, f"it was not evaluated again: {reason}")
        else:
            ended = self.releases.transition(release.digest, FAILED, reason, of_execution=release.execution)
        if ended:
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
    def _log(done: str, result: Sweep) -> None:
        told = {name: getattr(result, name) for name in ("removed", "waiting", "kept", "refused", "unrouted")}
        is_normal = not result.refused and DAMAGED not in result.kept.values()
        (logger.info if is_normal else logger.warning)(done, **told)


def _known(
    read: Callable[[Any, str], dict[str, Any] | None], bedrock: Any, name: str
) -> dict[str, Any] | None:
    """Return the resource that the table names, or None; a person may have damaged the name."""
    try:
        return read(bedrock, name)
    except ClientError as error:
        if code(error) in {"ValidationException", "AccessDeniedException"}:
            return None
        raise


def _known_throughput(releases: Sequence[Release]) -> list[str]:
    """Return names and ARNs of throughput that releases name."""
    arns = [release.endpoint for release in releases if throughput.is_throughput(release.endpoint)]
    return [*arns, *(release.throughput for release in releases)]
