"""Where a release's model comes from: a job of ours, somebody's job, or a model that is there already.

A job of ours is looked at until it ends. Where the settings say so, it is stopped if it does not start, and
made again if Bedrock failed it by an error of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws import executions
from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.metrics import count
from distilled_router.aws.state_machine import StageResult, done, failed, not_in_progress, readable, waiting
from distilled_router.bedrock import jobs, models
from distilled_router.bedrock.naming import CLOSED_TAG, OWNER_TAG, attempt_name, bedrock_tags
from distilled_router.env import CandidateEnv
from distilled_router.release.table import WAITING, Release, Releases

logger = Logger(child=True)

Job = Mapping[str, Any]

NOT_MADE_AGAIN = (
    "It is not trained again by itself: set another nonce (distillation.nonce in the environment's settings) "
    "to pay for a new job."
)


def watch(
    digest: str,
    bedrock: Any,
    stepfunctions: Any,
    releases: Releases,
    env: CandidateEnv,
    now: float | None = None,
) -> StageResult:
    """Look once at the release's source; `done` once its model can be deployed.

    A job that never starts raises the metric StalledJobs, and ends the release after `timeout_hours` of
    waiting. It is stopped only with `stop_stalled`, since its queue may move and its name is used up.
    Declared again, the release waits for it again.
    """
    release = releases.get(digest)
    if release is None or release.is_final:
        return not_in_progress(digest)
    return _Look(release, bedrock, stepfunctions, releases, env, now or time.time()).result()


@dataclass(frozen=True)
class _Look:
    """One look at a release's source. `at` is in epoch seconds."""

    release: Release
    bedrock: Any
    stepfunctions: Any
    releases: Releases
    env: CandidateEnv
    at: float

    def result(self) -> StageResult:
        """What the stage answers."""
        source = self.release.source
        if ":custom-model/" in source:
            return self._of_model(source, f"model {source}", "Name a model of this account and Region.")
        made = self._jobs()
        if not made:
            return self._of_labelling()
        job = made[-1]
        if job["status"] == "Completed":
            return self._of_job(job)
        if job["status"] in {"Failed", "Stopped", "Stopping"}:
            return self._ended(made)
        return self._goes_on(made)

    def _of_labelling(self) -> StageResult:
        """The job is made by its labelling, if it has one: wait for that.

        One that ended without a job is started again once in each attempt at the release, and goes on where
        it ended: what was paid for is not paid again. Not so one that its own resource has stopped: its stack
        asks for another model, or is going, and would not know of the job.
        """
        source, machine, digest = self.release.source, self.env.labelling_machine_arn, self.release.digest
        if not machine:
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
            return self._again(text)
        if self._jobs():
            return self._again("the labelling has made its job")
        stopped_by_us = last.get("error") == executions.SUPERSEDED
        if self.release.labelling or stopped_by_us or last["status"] == "SUCCEEDED":
            return failed(_labelling_failure(last))
        arn = executions.ensure(self.stepfunctions, machine, digest, str(last["input"]))
        text = f"the labelling, which was {last['status']}, goes on: {arn.rsplit(':', 1)[-1]}"
        self.releases.transition(digest, WAITING, text, labelling=arn)
        return self._again(text)

    def _jobs(self) -> Sequence[Job]:
        """All attempts at a job of ours, in order; of somebody's the one that was named."""
        if not self.release.is_adopted:
            return jobs.attempts(self.bedrock, self.release.source)
        job = jobs.find(self.bedrock, self.release.source)
        return [job] if job else []

    def _goes_on(self, made: Sequence[Job]) -> StageResult:
        """Wait, unless it has taken too long."""
        job, idle = made[-1], _idle_hours(made[-1], self.at)
        if idle > self.env.stall_hours:
            count("StalledJobs", self.env.owner)
            if self.env.stop_stalled and not self.release.is_adopted:
                return self._stop(job, idle)
        waited = self._waited_hours(made)
        if waited > self.env.timeout_hours:
            return failed(
                f"job {job['jobName']} is still {job['status']} after {waited:.0f} h: {jobs.progress(job)}"
            )
        text = f"job {job['status']}{self._numbered(made)}: {jobs.progress(job)}"
        self.releases.transition(self.release.digest, WAITING, text, stopping="")
        return self._again(text)

    def _stop(self, job: Job, hours: float) -> StageResult:
        """Stop a job that has not started. The reason is kept, since the next looks only find it stopped."""
        name, digest = job["jobName"], self.release.digest
        stalled = f"its next phase had not started for {hours:.3g} h ({jobs.progress(job)})"
        reason = (
            f"job {name} was stopped: {stalled}, which is more than release.stall_hours = "
            f"{self.env.stall_hours:g}. What it did before is charged. {NOT_MADE_AGAIN} That one waits "
            "for capacity anew; raise release.stall_hours to wait longer."
        )
        text = f"job {name} is being stopped: {stalled}"
        if not self.releases.transition(digest, WAITING, text, stopping=reason):
            return not_in_progress(digest)
        logger.warning("stopping a stalled job", job=job["jobArn"], hours=hours)
        jobs.stop(self.bedrock, job)
        return self._again(text)

    def _ended(self, made: Sequence[Job]) -> StageResult:
        """Fail with the job's own reason, unless we stop it or may make it again."""
        job, stopping = made[-1], self.release.stopping
        if stopping and job["status"] == "Stopping":
            return self._again(self.release.message)
        if stopping and job["status"] == "Stopped":
            return failed(stopping)
        unsaid = "no reason given" if job["status"] == "Failed" else f"by somebody else. {NOT_MADE_AGAIN}"
        reason = job.get("failureMessage") or unsaid
        progress = f"{jobs.progress(job)}{self._numbered(made)}"
        text = f"job {job['jobName']} is {job['status']} ({progress}): {reason}"
        if self._may_be_made_again(made):
            return self._make_again(made, text)
        return failed(text)

    def _may_be_made_again(self, made: Sequence[Job]) -> bool:
        """Counted by the jobs that exist, none of which can be deleted: no crash, no second delivery and no
        new deployment starts the count anew."""
        return (
            not self.release.is_adopted
            and len(made) < self._most_attempts()
            and jobs.failed_internally(made[-1])
            and self._waited_hours(made) <= self.env.timeout_hours
        )

    def _make_again(self, made: Sequence[Job], text: str) -> StageResult:
        """Make the next attempt at the job, unless the release has ended or the job's resource is gone."""
        digest, attempt = self.release.digest, len(made) + 1
        name = attempt_name(self.release.source, attempt)
        text = f"{text} Making it again as {name}, attempt {attempt} of {self._most_attempts()}"
        if not self.releases.transition(digest, WAITING, text):
            return not_in_progress(digest)
        try:
            with self.releases.creating(digest) as allowed:
                if not allowed:
                    return not_in_progress(digest)
                arn = jobs.retry(self.bedrock, made[-1], attempt)
        except NotYetError as error:
            return self._again(f"{text}. Not yet: {error}")
        except ResourceError as error:
            return failed(f"{text}. That failed: {error}")
        logger.warning("job made again", job=arn, failed=made[-1]["jobArn"])
        return self._again(text)

    def _of_job(self, job: Job) -> StageResult:
        arn, whose = job.get("outputModelArn"), f"the model of job {job['jobName']}"
        if arn is None:
            return failed(f"{whose} is not named, though the job completed. {NOT_MADE_AGAIN}")
        return self._of_model(arn, f"{whose}, {arn},", NOT_MADE_AGAIN, job)

    def _of_model(self, arn: str, whose: str, advice: str, job: Job | None = None) -> StageResult:
        """Give the release its model. One that is Active can be deployed."""
        model = models.find(self.bedrock, arn)
        if model is None:
            return failed(f"{whose} does not exist. {advice}")
        status = model.get("modelStatus", "Active")
        if status == "Failed":
            return failed(f"{whose} is Failed: {model.get('failureMessage') or 'no reason given'}. {advice}")
        if status != "Active":
            return self._again(f"{whose} is {status}")
        if job and not self.release.is_adopted and arn != self.release.model_arn:
            _match_tags(self.bedrock, job["jobArn"], arn, self.env.owner)
        ended = (job or {}).get("endTime") or model.get("creationTime") or datetime.now(UTC)
        self.releases.update(self.release.digest, model_arn=arn, trained_at=int(ended.timestamp()))
        return done(f"{whose} is {status}")

    def _again(self, text: str) -> StageResult:
        return waiting(text, self.env.poll_seconds)

    def _most_attempts(self) -> int:
        return 1 + self.env.retry_internal_errors

    def _numbered(self, made: Sequence[Job]) -> str:
        most = max(len(made), self._most_attempts())
        return f", attempt {len(made)} of {most}" if most > 1 else ""

    def _waited_hours(self, made: Sequence[Job]) -> float:
        """Over all attempts: the state machine's own time and history are for no more than that."""
        since = max(made[0]["creationTime"].timestamp(), self.release.started_at)
        return float(self.at - since) / 3600


def _labelling_failure(execution: Mapping[str, Any]) -> str:
    """Why there is no job, in words."""
    status, name = execution["status"], execution["name"]
    why = readable(str(execution.get("cause") or "")) or "no reason given"
    return (
        f"the labelling {name} is {status}: {why}. What was answered is kept. Mend the cause and raise "
        "release.attempt in the environment's settings to go on from there."
    )


def _idle_hours(job: Job, at: float) -> float:
    """For how long a job has shown nothing but a phase that is NotStarted, after those that are done. Jobs
    have waited for capacity for days in this state."""
    phases = [p for p in (job.get("statusDetails") or {}).values() if isinstance(p, Mapping)]
    states = {phase.get("status") for phase in phases}
    if "NotStarted" not in states or "InProgress" in states:
        return 0.0
    done_at = [
        p["lastModifiedTime"] for p in phases if p["status"] == "Completed" and p.get("lastModifiedTime")
    ]
    return float(at - max([job["creationTime"], *done_at]).timestamp()) / 3600


def _match_tags(bedrock: Any, job_arn: str, model_arn: str, owner: str) -> None:
    """Give a new model its job's present tags: its own are from the job's creation, and the job's may have
    changed while it ran. Only of what carries the owner's tag, which is all that the role may change."""
    wanted, present = _tags(bedrock, job_arn), _tags(bedrock, model_arn)
    if not wanted.get(OWNER_TAG) == present.get(OWNER_TAG) == owner:
        return
    changed = {key: value for key, value in wanted.items() if present.get(key) != value}
    if changed:
        bedrock.tag_resource(resourceARN=model_arn, tags=bedrock_tags(changed))
    # That nobody owns the model any more is said on the model alone.
    if gone := sorted(present.keys() - wanted.keys() - {CLOSED_TAG}):
        bedrock.untag_resource(resourceARN=model_arn, tagKeys=gone)


def _tags(bedrock: Any, arn: str) -> dict[str, str]:
    found = bedrock.list_tags_for_resource(resourceARN=arn).get("tags", [])
    return {tag["key"]: tag["value"] for tag in found}
