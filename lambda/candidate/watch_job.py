"""Step WatchJob: wait for the release's model.

The model comes from this owner's job, from an adopted job, or is an existing model. The settings decide
whether an own job is stopped if it does not start, and retried after an internal error of Bedrock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws import executions
from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.metrics import count
from distilled_router.aws.state_machine import StageResult, done, failed, not_in_progress, readable, waiting
from distilled_router.bedrock import jobs, models, ownership, roles
from distilled_router.bedrock.naming import HOLDOUT_TAG, OWNER_TAG, TRAINING_TAG, attempt_name, holdout_tag
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.roles import RoleNotReadyError
from distilled_router.env import CandidateEnv
from distilled_router.release.table import WAITING, Release, Releases

logger = Logger(child=True)

Job = Mapping[str, Any]

SET_NONCE = (
    "It is not retried automatically: set another nonce (distillation.nonce in the environment's settings) "
    "to pay for a new job."
)


@dataclass(frozen=True)
class Clients:
    """Clients of the step."""

    bedrock: Any
    stepfunctions: Any
    s3: Any


def watch(
    digest: str, clients: Clients, releases: Releases, env: CandidateEnv, now: float | None = None
) -> StageResult:
    """Poll the release's source once; return `done` if its model can be deployed.

    A job that does not start raises the metric StalledJobs, and fails the release after `timeout_hours`. The
    job itself is stopped only with `stop_stalled`, since it may still start and its name can't be used again.
    The next attempt at the release continues to wait for it.
    """
    release = releases.get(digest)
    if release is None or release.is_over:
        return not_in_progress(digest)
    return _Poll(release, clients, releases, env, now or time.time()).result()


@dataclass(frozen=True)
class _Poll:
    """One poll of a release's source. `at` is in epoch seconds."""

    release: Release
    clients: Clients
    releases: Releases
    env: CandidateEnv
    at: float

    @property
    def bedrock(self) -> Any:
        """Return the Bedrock client."""
        return self.clients.bedrock

    @property
    def stepfunctions(self) -> Any:
        """Return the Step Functions client."""
        return self.clients.stepfunctions

    def result(self) -> StageResult:
        """Return the step's result."""
        source = self.release.source
        if ":custom-model/" in source:
            return self._of_model(source, f"model {source}", "Use a model of this account and Region.")
        attempts = self._jobs()
        if not attempts:
            return self._of_labelling()
        job = attempts[-1]
        if job["status"] == "Completed":
            return self._of_job(job)
        if job["status"] in {"Failed", "Stopped", "Stopping"}:
            return self._ended(attempts)
        return self._in_progress(attempts)

    def _of_labelling(self) -> StageResult:
        """Wait for the labelling, which creates the job.

        An execution that ended without a job is restarted once per attempt at the release, and reuses all
        answers. An execution that its own resource stopped is not: its stack has another model or is being
        deleted, and would not know of the job.
        """
        source, machine, digest = self.release.source, self.env.labelling_machine_arn, self.release.digest
        if not machine:
            if confirmed(lambda: self._jobs() or None, self.env.absence_seconds):
                return self._waiting(f"job {source} was found late")
            return failed(f"job {source} does not exist; deploy the stack with its DistillationJob first")
        known = list(executions.of_work(self.stepfunctions, machine, digest))
        if not known:
            return failed(f"the labelling of {digest} was never started; deploy the stack with it first")
        last = known[-1]
        if executions.is_open(last):
            waited = (self.at - self.release.started_at) / 3600
            if waited > self.env.timeout_hours:
                return failed(f"the labelling still runs after {waited:.0f} h: {last['executionArn']}")
            text = f"the queries are being labelled: {last['name']}"
            self.releases.transition(digest, WAITING, text, labelling=last["executionArn"])
            return self._waiting(text)
        if confirmed(lambda: self._jobs() or None, self.env.absence_seconds):
            return self._waiting("the labelling has created its job")
        stopped_by_us = last.get("error") == executions.SUPERSEDED
        if self.release.labelling or stopped_by_us or last["status"] == "SUCCEEDED":
            return failed(_labelling_failure(last))
        arn = executions.ensure(self.stepfunctions, machine, digest, str(last["input"]))
        text = f"the labelling, which was {last['status']}, was restarted: {arn.rsplit(':', 1)[-1]}"
        self.releases.transition(digest, WAITING, text, labelling=arn)
        return self._waiting(text)

    def _jobs(self) -> Sequence[Job]:
        """Return all attempts at this owner's job, in order; or the adopted job."""
        if not self.release.is_adopted:
            return jobs.attempts(self.bedrock, self.release.source)
        job = jobs.find(self.bedrock, self.release.source)
        return [job] if job else []

    def _in_progress(self, attempts: Sequence[Job]) -> StageResult:
        """Wait for the job, unless it has stalled or timed out."""
        job, idle = attempts[-1], _idle_hours(attempts[-1], self.at)
        if not self.release.is_adopted and self._is_unclaimed(attempts[0]):
            return self._abandoned(job)
        if idle > self.env.stall_hours:
            count("StalledJobs", self.env.owner)
            if self.env.stop_stalled and not self.release.is_adopted:
                return self._stop(job, idle)
        waited = self._waited_hours(attempts)
        if waited > self.env.timeout_hours:
            return failed(
                f"job {job['jobName']} is still {job['status']} after {waited:.0f} h: {jobs.progress(job)}"
            )
        text = f"job {job['status']}{self._numbered(attempts)}: {jobs.progress(job)}"
        self.releases.transition(self.release.digest, WAITING, text, stopping="")
        return self._waiting(text)

    def _abandoned(self, job: Job) -> StageResult:
        """End the release of a job whose resource was deleted.

        That Delete stops every attempt that it finds. It may not have found one that a release created.
        """
        name, why = job["jobName"], jobs.unclaimed(self.release.source)
        if not self.env.retry_internal_errors:
            return failed(f"job {name} is {job['status']}: {why}")
        jobs.abandon(self.bedrock, job)
        return failed(f"job {name} was stopped: {why}")

    def _is_unclaimed(self, job: Job) -> bool:
        """Return whether the resource that declared the job was deleted."""
        return not jobs.is_claimed(self.bedrock, job, self.env.absence_seconds)

    def _stop(self, job: Job, hours: float) -> StageResult:
        """Stop a job that has not started, and store the reason for later polls."""
        name, digest = job["jobName"], self.release.digest
        stalled = f"its next phase had not started for {hours:.3g} h ({jobs.progress(job)})"
        reason = (
            f"job {name} was stopped: {stalled}, which is more than release.stall_hours = "
            f"{self.env.stall_hours:g}. Its work so far is billed. {SET_NONCE} A new job waits for capacity "
            "from the start; raise release.stall_hours to wait longer."
        )
        text = f"job {name} is being stopped: {stalled}"
        if not self.releases.transition(digest, WAITING, text, stopping=reason):
            return not_in_progress(digest)
        logger.warning("stopping a stalled job", job=job["jobArn"], hours=hours)
        jobs.stop(self.bedrock, job)
        return self._waiting(text)

    def _ended(self, attempts: Sequence[Job]) -> StageResult:
        """Return the job's failure, or retry the job, or wait while it is being stopped."""
        job, stopping = attempts[-1], self.release.stopping
        if stopping and job["status"] == "Stopping":
            return self._waiting(self.release.message)
        if stopping and job["status"] == "Stopped":
            return failed(stopping)
        unknown = "no reason given" if job["status"] == "Failed" else f"not by this release. {SET_NONCE}"
        if job["status"] != "Failed" and not self.release.is_adopted and self._is_unclaimed(attempts[0]):
            unknown = jobs.unclaimed(self.release.source)
        reason = job.get("failureMessage") or unknown
        progress = f"{jobs.progress(job)}{self._numbered(attempts)}"
        text = f"job {job['jobName']} is {job['status']} ({progress}): {reason}"
        if self._may_retry(attempts):
            return self._retry(attempts, text)
        return failed(text)

    def _may_retry(self, attempts: Sequence[Job]) -> bool:
        """Return whether the job may be retried.

        Existing jobs are counted. They can't be deleted, so no crash or new deployment resets the count.
        """
        return (
            not self.release.is_adopted
            and len(attempts) < self._most_attempts()
            and jobs.failed_internally(attempts[-1])
            and self._waited_hours(attempts) <= self.env.timeout_hours
        )

    def _retry(self, attempts: Sequence[Job], text: str) -> StageResult:
        """Create the next attempt at the job, unless the release has ended."""
        digest, attempt = self.release.digest, len(attempts) + 1
        name = attempt_name(self.release.source, attempt)
        text = f"{text} Retrying as {name}, attempt {attempt} of {self._most_attempts()}"
        if not self.releases.transition(digest, WAITING, text):
            return not_in_progress(digest)
        try:
            with self.releases.creating(digest, self._claimant) as allowed:
                if not allowed:
                    return not_in_progress(digest)
                seconds = self.env.absence_seconds
                jobs.check_training(self.bedrock, self.clients.s3, attempts[-1])
                arn = jobs.retry(self.bedrock, attempts[-1], attempt, absence_seconds=seconds)
        except RoleNotReadyError as error:
            if error.is_overdue(self._retried_seconds(attempts[-1])):
                return failed(f"{text}. That failed: {error}")
            return waiting(f"{text}. Not yet possible: {error}", roles.RETRY_SECONDS)
        except NotYetError as error:
            return self._waiting(f"{text}. Not yet possible: {error}")
        except ResourceError as error:
            return failed(f"{text}. That failed: {error}")
        logger.warning("job retried", job=arn, failed=attempts[-1]["jobArn"])
        return self._waiting(text)

    def _of_job(self, job: Job) -> StageResult:
        arn, whose = job.get("outputModelArn"), f"the model of job {job['jobName']}"
        if arn is None:
            return failed(f"{whose} has no ARN, though the job completed. {SET_NONCE}")
        return self._of_model(arn, f"{whose}, {arn},", SET_NONCE, job)

    def _of_model(self, arn: str, whose: str, advice: str, job: Job | None = None) -> StageResult:
        """Store the release's model and return `done` if it is Active."""
        model = confirmed(lambda: models.find(self.bedrock, arn), self.env.absence_seconds)
        if model is None:
            return failed(f"{whose} does not exist. {advice}")
        status = model.get("modelStatus", "Active")
        if status == "Failed":
            return failed(f"{whose} is Failed: {model.get('failureMessage') or 'no reason given'}. {advice}")
        if status != "Active":
            return self._waiting(f"{whose} is {status}")
        known = {"holdout_sha256": self.env.holdout_sha256}
        if job and not self.release.is_adopted:
            jobs.check_training(self.bedrock, self.clients.s3, job)
            tags = ownership.read_tags(self.bedrock, job["jobArn"]) or {}
            of_set = tags.get(holdout_tag(self.release.holdout_key)) or tags.get(HOLDOUT_TAG, "")
            known = {
                "training_sha256": tags.get(TRAINING_TAG, ""),
                "holdout_sha256": self.env.holdout_sha256 or of_set,
            }
            # The tags of a new model may be readable later than the model itself.
            confirmed(lambda: ownership.read_tags(self.bedrock, arn) or None, self.env.absence_seconds)
            if arn != self.release.model_arn:
                _match_tags(self.bedrock, job["jobArn"], arn, self.env.owner)
            try:
                with self.releases.creating(self.release.digest, self._claimant) as allowed:
                    if not allowed:
                        return not_in_progress(self.release.digest)
                    _claim(self.bedrock, arn, self._claimant, self.env.owner)
            except NotYetError as error:
                return self._waiting(f"{whose} is not claimed yet: {error}")
        ended = (job or {}).get("endTime") or model.get("creationTime") or datetime.now(UTC)
        trained_at = int(ended.timestamp())
        self.releases.update(self.release.digest, model_arn=arn, trained_at=trained_at, **known)
        return done(f"{whose} is {status}")

    @property
    def _claimant(self) -> Claimant:
        return Claimant(self.env.stack_id, self.env.logical_id)

    def _waiting(self, text: str) -> StageResult:
        return waiting(text, self.env.poll_seconds)

    def _most_attempts(self) -> int:
        return 1 + self.env.retry_internal_errors

    def _numbered(self, attempts: Sequence[Job]) -> str:
        most = max(len(attempts), self._most_attempts())
        return f", attempt {len(attempts)} of {most}" if most > 1 else ""

    def _retried_seconds(self, job: Job) -> float:
        """Return for how many seconds a failed job has been retried, from the poll that saw the failure."""
        failed_at = (job.get("endTime") or job["creationTime"]).timestamp()
        return float(self.at - max(failed_at, self.release.started_at) - self.env.poll_seconds)

    def _waited_hours(self, attempts: Sequence[Job]) -> float:
        """Return the hours waited over all attempts, which the state machine's timeout must cover."""
        since = max(attempts[0]["creationTime"].timestamp(), self.release.started_at)
        return float(self.at - since) / 3600


def _labelling_failure(execution: Mapping[str, Any]) -> str:
    """Return the message for a labelling that ended without a job."""
    status, name = execution["status"], execution["name"]
    why = readable(str(execution.get("cause") or "")) or "no reason given"
    return (
        f"the labelling {name} is {status}: {why}. Its answers are kept. Fix the cause and raise "
        "release.attempt in the environment's settings to continue from there."
    )


def _idle_hours(job: Job, at: float) -> float:
    """Return for how long a job's next phase has been NotStarted, in hours; 0 if a phase is in progress.

    Jobs have waited for capacity for days in this state.
    """
    phases = [p for p in (job.get("statusDetails") or {}).values() if isinstance(p, Mapping)]
    states = {phase.get("status") for phase in phases}
    if "NotStarted" not in states or "InProgress" in states:
        return 0.0
    done_at = [
        p["lastModifiedTime"] for p in phases if p["status"] == "Completed" and p.get("lastModifiedTime")
    ]
    return float(at - max([job["creationTime"], *done_at]).timestamp()) / 3600


def _match_tags(bedrock: Any, job_arn: str, model_arn: str, owner: str) -> None:
    """Copy the job's present tags to its new model, whose own tags date from the job's creation.

    Changes nothing unless both carry the owner's tag, since the role may only tag the owner's resources.
    Claims follow a rule of their own, `jobs.sync_claims`.
    """
    wanted, present = (ownership.read_tags(bedrock, arn) or {} for arn in (job_arn, model_arn))
    if not wanted.get(OWNER_TAG) == present.get(OWNER_TAG) == owner:
        return
    jobs.sync_claims(bedrock, job_arn, model_arn)
    wanted, present = _plain(wanted), _plain(present)
    if changed := {key: value for key, value in wanted.items() if present.get(key) != value}:
        ownership.add_tags(bedrock, model_arn, changed)
    if gone := sorted(present.keys() - wanted.keys()):
        ownership.remove_tags(bedrock, model_arn, gone)


def _claim(bedrock: Any, model_arn: str, claimant: Claimant, owner: str) -> None:
    """Claim a model for the release, which may need it longer than its job's resource exists.

    A model that nobody claims was retained when its job's resource was deleted; a release must not delete it.
    """
    tags = ownership.read_tags(bedrock, model_arn) or {}
    if tags.get(OWNER_TAG) == owner and ownership.claims(tags) and not claimant.holds(tags):
        ownership.claim(bedrock, model_arn, claimant)


def _plain(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags without claims."""
    return {key: value for key, value in tags.items() if not ownership.is_about_claims(key)}
