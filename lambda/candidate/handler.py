"""The release's first steps: wait for the job, then give its model a candidate endpoint of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from shared import deployments, jobs, models
from shared.clients import client, table
from shared.errors import NotYetError, ResourceError
from shared.metrics import count
from shared.naming import DIGEST_TAG, OWNER_TAG, release_name
from shared.releases import DEPLOYING, WAITING, Release, Releases
from shared.stages import StageResult, done, failed, patient, release_tags, waiting

logger = Logger()


def watch_job(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage "job": whether the release's job has made its model."""
    del context
    digest, seconds = str(event["release"]), int(os.environ["POLL_SECONDS"])
    return patient(lambda: watch(digest, client("bedrock"), _releases(), os.environ), seconds)


def deploy(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage "candidate": whether the model's on-demand deployment is active."""
    del context
    digest, seconds = str(event["release"]), int(os.environ["POLL_SECONDS"])
    return patient(lambda: deploy_candidate(digest, client("bedrock"), _releases(), os.environ), seconds)


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))


def watch(
    digest: str,
    bedrock: Any,
    releases: Releases,
    settings: Mapping[str, str],
    now: float | None = None,
) -> StageResult:
    """Look at the job once. A job that never starts raises the metric StalledJobs, and ends the release
    after `TIMEOUT_HOURS` of waiting; it is not stopped here, since its queue may move and its name is used
    up. Declared again, the release waits for it again."""
    release, seconds = releases.get(digest), int(settings["POLL_SECONDS"])
    name = release_name(settings["NAME"], digest)
    if release is None or release.is_final:
        return failed(f"release {digest} is not on its way any more")
    job = jobs.find(bedrock, name)
    if job is None:
        return failed(f"job {name} does not exist; deploy the Distillation stack first")
    status = job["status"]
    if status == "Completed":
        return _model_of(job, digest, bedrock, releases, seconds)
    if status in {"Failed", "Stopped", "Stopping"}:
        reason = job.get("failureMessage") or "no reason given"
        return failed(f"job {name} is {status} ({jobs.progress(job)}): {reason}")
    at, created = now or time.time(), job["creationTime"].timestamp()
    waited_hours = (at - max(created, release.started_at)) / 3600
    if waited_hours > float(settings["TIMEOUT_HOURS"]):
        return failed(f"job {name} is still {status} after {waited_hours:.0f} h: {jobs.progress(job)}")
    if _is_stalled(job, (at - created) / 3600, float(settings["STALL_HOURS"])):
        count("StalledJobs", settings["NAME"])
    text = f"job {status}: {jobs.progress(job)}"
    releases.transition(digest, WAITING, text)
    return waiting(text, seconds)


def _is_stalled(job: Mapping[str, Any], age_hours: float, limit_hours: float) -> bool:
    """Jobs have waited for capacity for days with nothing to show but a phase that is NotStarted."""
    details = job.get("statusDetails") or {}
    phases = [phase.get("status") for phase in details.values() if isinstance(phase, Mapping)]
    return age_hours > limit_hours and "InProgress" not in phases


def _model_of(
    job: Mapping[str, Any], digest: str, bedrock: Any, releases: Releases, seconds: int
) -> StageResult:
    arn, name = job.get("outputModelArn"), job["jobName"]
    model = models.find(bedrock, arn) if arn else None
    if model is None:
        return failed(
            f"job {name} completed, but its model {arn or 'is not named'} does not exist any more. It is not "
            "trained again by itself: set distillation.nonce to pay for a new job."
        )
    # A model can be deployed once it is Active.
    status = model.get("modelStatus", "Active")
    if status == "Failed":
        return failed(f"model {arn} of job {name} failed: {model.get('failureMessage', 'no reason given')}")
    if status == "Creating":
        return waiting(f"model {arn} of job {name} is being created", seconds)
    ended = job.get("endTime") or datetime.now(UTC)
    releases.update(digest, model_arn=arn, trained_at=int(ended.timestamp()))
    return done(f"job {name} made {arn}")


def deploy_candidate(
    digest: str, bedrock: Any, releases: Releases, settings: Mapping[str, str]
) -> StageResult:
    """Make the candidate's deployment, or look at it once. It costs nothing while it is idle."""
    release, name = releases.get(digest), release_name(settings["NAME"], digest)
    if release is None or release.is_final:
        return failed(f"release {digest} is not on its way any more")
    seconds = int(settings["POLL_SECONDS"])
    if release.state == DEPLOYING and deployments.find(bedrock, name) is None:
        # Making it again would make nothing: Bedrock has seen this attempt's token.
        return failed(f"deployment {name} was made and is gone again; deploy again to make another")
    try:
        found = _deployment(bedrock, name, release, settings)
    except NotYetError as error:
        return waiting(str(error), seconds)
    except ResourceError as error:
        return failed(str(error))
    status, arn = found["status"], found["customModelDeploymentArn"]
    if status == deployments.FAILED:
        return failed(f"deployment {name} failed: {found.get('failureMessage', 'no reason given')}")
    text, active = f"deployment {name} is {status}", status == deployments.ACTIVE
    if not releases.transition(digest, DEPLOYING, text, **({"endpoint": arn} if active else {})):
        return failed(f"release {digest} is not on its way any more")
    return done(text) if active else waiting(text, seconds)


def _deployment(bedrock: Any, name: str, release: Release, settings: Mapping[str, str]) -> dict[str, Any]:
    owner = settings["NAME"]
    return deployments.ensure(
        bedrock,
        name=name,
        model_arn=release.model_arn,
        owner=owner,
        tags={**release_tags(settings), OWNER_TAG: owner, DIGEST_TAG: release.digest},
        token=release.token(name),
        description=f"Release {release.digest} of {owner}",
    )
