"""Custom resource DistillationJob: start a Bedrock customization job, without waiting for its end.

The physical id is the job's name. onEvent only returns it and makes no calls; isComplete does the work. The
reason: the framework drops the Delete that follows a failed onEvent. If isComplete fails or crashes,
CloudFormation knows the name and its Delete stops the job. Besides, only isComplete is retried.

An Update never deletes a job. Another name is another job, and CloudFormation deletes the old one after the
update has succeeded. Bedrock can't change a job, so an Update that would need that fails. Further attempts
that a release created under the job's name belong to this resource, too.

With `MadeLater` the resource only checks the models, and a state machine calls `create_job` when the data is
ready. The job still belongs to the resource, and its Delete stops it.

Whether a job belongs to the resource, its claims say (`bedrock.ownership`). Delete removes the resource's own
claims, and stops or deletes what nobody else claims.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws import executions
from distilled_router.aws.absence import confirmed
from distilled_router.aws.clients import client
from distilled_router.aws.custom_resource import (
    Event,
    answer,
    answer_event,
    answer_poll,
    complete,
    is_true,
    pending,
)
from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.fence import SupersededError
from distilled_router.aws.state_machine import (
    StageResult,
    done,
    failed,
    pause,
    wait_if_transient,
    waited,
    waiting,
)
from distilled_router.aws.storage import PURGE_SECONDS, deadline, purge
from distilled_router.bedrock import jobs, models, ownership
from distilled_router.bedrock.naming import DIGEST_TAG, HOLDOUT_TAG, OWNER_TAG, TRAINING_TAG, digest_of
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.roles import NEW_ROLE_SECONDS, RoleNotReadyError
from distilled_router.env import CreateJobEnv, ResourceEnv

logger = Logger()

# Seconds for which a temporary failure of the first call is retried.
CREATE_WAIT_SECONDS = NEW_ROLE_SECONDS
# Poll interval of the state machine.
RETRY_SECONDS = 15


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_event(request, handle)


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_poll(request, lambda each: check(each, client("bedrock"), client("s3")))


def create_job(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step of a state machine: create a resource's job now that its data is ready.

    The event has the resource's `properties`, the ARN of the calling `execution`, and as `files` the SHA-256
    of the published files by name. An execution of an earlier version has none.
    """
    del context
    env, execution = CreateJobEnv.read(), str(event["execution"])
    bedrock, s3, stepfunctions = client("bedrock"), client("s3"), client("stepfunctions")
    spec = with_files(job_spec(event["properties"]), event.get("files", {}))

    def check_runs() -> None:
        if not executions.is_open(executions.find(stepfunctions, execution)):
            raise SupersededError(
                f"Job {spec.job_name} was not created, or was stopped: the execution was stopped."
            )

    claimant = Claimant(env.stack_id, env.logical_id)
    request = jobs.Request(claimant, execution, check_runs, check_data=lambda: spec.training.check(s3))
    legacy = is_true(event["properties"].get("AllowLegacy", "false"))
    seconds = waited(event)
    return wait_if_transient(
        lambda: create_if_wanted(spec, bedrock, request, allow_legacy=legacy, seconds=seconds),
        pause(seconds, RETRY_SECONDS),
    )


def create_if_wanted(
    spec: jobs.JobSpec, bedrock: Any, request: jobs.Request, *, allow_legacy: bool, seconds: float = 0.0
) -> StageResult:
    """Create the job, unless the request is superseded: its execution does not run any more.

    `seconds` are those for which this step has tried so far.
    """
    try:
        arn = jobs.ensure(bedrock, spec, request, allow_legacy=allow_legacy)
    except NotYetError as error:
        if isinstance(error, RoleNotReadyError) and error.is_overdue(seconds):
            return failed(str(error))
        return waiting(str(error), pause(seconds, RETRY_SECONDS))
    except ResourceError as error:
        return failed(str(error))
    return done(f"job {arn} was created")


def handle(event: Event, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Return the job name, and the request time if the job may need creating."""
    if event.is_delete:
        return answer(event.physical_id or "")
    name = job_spec(event.properties).job_name
    is_in_place = event.request_type == "Update" and event.physical_id == name
    return answer(name) if is_in_place else answer(name, RequestedAt=now())


def check(event: Event, bedrock: Any, s3: Any, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Create or update the job, or continue its deletion; return whether that is complete."""
    if event.is_delete:
        wanted = _deleted(job_spec(event.properties), str(event.physical_id))
        waiting_for = _remove(event, bedrock, s3, wanted, event.properties)
        return pending(waiting_for) if waiting_for else complete()
    if "RequestedAt" not in event.raw:
        return _update_in_place(event, bedrock, s3)
    spec, legacy = job_spec(event.properties), is_true(event.properties.get("AllowLegacy", "false"))
    today = datetime.fromtimestamp(now(), UTC)
    _refuse_the_same_model(event, bedrock, spec)
    # An existing job is claimed, perhaps one that was created a moment ago for another logical id.
    if _is_created_later(event) and not confirmed(
        lambda: jobs.find(bedrock, spec.job_name), event.absence_seconds
    ):
        jobs.check_models(bedrock, spec, allow_legacy=legacy, today=today)
        return complete(jobs.planned_attributes(spec))
    may_wait = now() - float(event.raw["RequestedAt"]) < CREATE_WAIT_SECONDS
    try:
        request = replace(jobs.Request.of(event), check_data=lambda: spec.training.check(s3))
        jobs.ensure(bedrock, spec, request, allow_legacy=legacy, today=today)
    except NotYetError as error:
        # The name is in use, so the job exists: CloudFormation must not roll back and stop it.
        if not may_wait and not isinstance(error, jobs.NameInUseError):
            raise
        logger.info("retrying later", reason=str(error))
        return pending(str(error))
    job = jobs.latest(bedrock, spec.job_name)
    if job and _is_seen_claimed(bedrock, spec, Claimant.of(event)):
        return complete(jobs.attributes(job))
    return pending(f"Job {spec.job_name}, or its claim, is not readable yet.")


def _refuse_the_same_model(event: Event, bedrock: Any, spec: jobs.JobSpec) -> None:
    """Raise ResourceError if an earlier version, with another digest, has a job for the same model."""
    earlier = event.properties.get("Earlier")
    if not earlier or jobs.find(bedrock, spec.job_name):
        return
    before = _named(spec, str(earlier["JobName"]))
    job = jobs.find(bedrock, before.job_name)
    if job and job["status"] in {"InProgress", "Completed"} and jobs.is_ours(bedrock, before, job):
        raise ResourceError(
            f"Job {spec.job_name} was not created: it would train the model of job {before.job_name} again, "
            f"which an earlier version created. {earlier['Keep']}. To train it again, set distillation.nonce."
        )


def _is_seen_claimed(bedrock: Any, spec: jobs.JobSpec, claimant: Claimant) -> bool:
    """Return whether others see the claim on all attempts and their models.

    After the Create of a renamed construct, CloudFormation deletes the old logical id, which looks for it.
    """
    found = _attempts(bedrock, spec)
    arns = [arn for job in found for arn in (job["jobArn"], job.get("outputModelArn")) if arn]
    tags = (ownership.read_tags(bedrock, arn) for arn in arns)
    # A model that was deleted by hand has no tags.
    return all(claimant.holds(known) for known in tags if known is not None)


def _update_in_place(event: Event, bedrock: Any, s3: Any) -> dict[str, Any]:
    """Continue an Update under the same name; return whether it is complete.

    Raises ResourceError for a change that the job can't take.
    """
    spec, old = job_spec(event.properties), _old_spec(event)
    if old and old.job_name == spec.job_name:
        _refuse_lost_changes(bedrock, spec, old)
    elif old:
        # CloudFormation rolls back a failed replacement. It never got the new name and won't delete that job.
        # Perhaps it was created a moment ago, and is not found at first.
        waiting_for = confirmed(
            lambda: _remove(event, bedrock, s3, old, event.old_properties), event.absence_seconds
        )
        if waiting_for:
            return pending(waiting_for)
    job = jobs.latest(bedrock, spec.job_name)
    if job is None and _is_created_later(event):
        return complete(jobs.planned_attributes(spec))
    job = job or confirmed(lambda: jobs.latest(bedrock, spec.job_name), event.absence_seconds)
    if job is None:
        raise ResourceError(
            f"Job {spec.job_name} does not exist in Bedrock. Set distillation.nonce to create a new one."
        )
    _sync_tags(bedrock, spec, event.old_properties)
    return complete(jobs.attributes(job))


def _is_created_later(event: Event) -> bool:
    return is_true(event.properties.get("MadeLater", "false"))


def _deleted(spec: jobs.JobSpec, physical_id: str) -> jobs.JobSpec:
    """Return the job that a Delete is for: the one of the physical id, if that is a job's name.

    CloudFormation invents another id for a Create that never answered; the properties name its job.
    """
    return _named(spec, physical_id)


def _named(spec: jobs.JobSpec, name: str) -> jobs.JobSpec:
    """Return the job of that name, if it is a job's name of this owner; otherwise the job itself."""
    digest = digest_of(spec.tags.get(OWNER_TAG, ""), name)
    if name == spec.job_name or digest is None:
        return spec
    return replace(spec, job_name=name, tags={**spec.tags, DIGEST_TAG: digest})


def _remove(
    event: Event, bedrock: Any, s3: Any, spec: jobs.JobSpec, properties: Mapping[str, Any]
) -> str | None:
    """Remove the resource's claims on a job, and whatever nobody else claims.

    Return what this still waits for, or None if nothing is left to do.
    """
    claimant = Claimant.of(event)
    # First the claims, then look again: another attempt is created only while the first one is claimed.
    for job in _attempts(bedrock, spec):
        jobs.disclaim(bedrock, job, claimant)
    found = _attempts(bedrock, spec)
    # Evaluated for all: each may have a claim of its own.
    unclaimed = [job for job in found if jobs.disclaim(bedrock, job, claimant)]
    if not unclaimed:
        logger.info("nothing to delete: no job of this name, or others claim it", job=spec.job_name)
        return None
    running = [job for job in unclaimed if not jobs.stop(bedrock, job)]
    if running:
        return " ".join(f"Job {job['jobName']} is being stopped: {jobs.progress(job)}." for job in running)
    purges = len(unclaimed) == len(found) and not is_true(properties.get("RetainOutput", "true"))
    if purges and not _purge_output(properties, s3):
        return f"The output under {properties['OutputDataUri']} is being deleted."
    if is_true(properties.get("RetainModel", "false")):
        return None
    left = [_model_left(bedrock, job.get("outputModelArn"), claimant) for job in unclaimed]
    return " ".join(filter(None, left)) or None


def _model_left(bedrock: Any, model: str | None, claimant: Claimant) -> str | None:
    """Delete a job's model unless it is claimed or in use; return why it has to be tried again, or None."""
    if model is None or not ownership.release(bedrock, model, claimant):
        return None
    users = models.users(bedrock, model)
    if users:
        logger.info("model kept: it is in use", model=model, used_by=users)
        return None
    return (
        None if models.delete(bedrock, model) else f"Model {model} can't be deleted yet: it is in use or new."
    )


def _attempts(bedrock: Any, spec: jobs.JobSpec) -> list[dict[str, Any]]:
    """Return this owner's attempts of the job, first to last."""
    return [job for job in jobs.attempts(bedrock, spec.job_name) if jobs.is_ours(bedrock, spec, job)]


def _old_spec(event: Event) -> jobs.JobSpec | None:
    """Return the job of the old properties; None if they are invalid.

    Invalid old properties mean that this event rolls back an update that failed because of them.
    """
    try:
        return job_spec(event.old_properties)
    except (KeyError, ValueError):
        return None


def _refuse_lost_changes(bedrock: Any, spec: jobs.JobSpec, old: jobs.JobSpec) -> None:
    """Raise ResourceError if the job was created with the old properties and the new ones differ.

    Otherwise this may be the rollback of an update that failed here. Its old properties are the rejected
    ones, and the job matches the new ones.
    """
    before, after = old.decisive(), spec.decisive()
    changed = [name for name in after if after[name] != before[name]]
    job = jobs.find(bedrock, spec.job_name) if changed else None
    if job is None or job.get("clientRequestToken") != old.token:
        return
    details = "; ".join(f"{name} is {_shown(before[name])}, not {_shown(after[name])}" for name in changed)
    raise ResourceError(
        f"Job {spec.job_name} was created with different parameters, and Bedrock can't change a job: "
        f"{details}. Set another nonce (distillation.nonce in the environment's settings) to pay for a new "
        "job, or revert the change."
    )


def _shown(value: Any) -> str:
    return json.dumps(value) if value or value is False else "nothing"


def _purge_output(properties: Mapping[str, Any], s3: Any) -> bool:
    """Remove the job's output within the time of one call; return whether all is gone."""
    bucket, _, prefix = str(properties["OutputDataUri"]).removeprefix("s3://").partition("/")
    return purge(s3, bucket, prefix, until=deadline(PURGE_SECONDS))


def job_spec(properties: Mapping[str, Any]) -> jobs.JobSpec:
    """Return the specification in the resource's properties; CloudFormation sends every value as a string.

    Raises KeyError and ValueError for invalid properties.
    """
    length = properties.get("MaxResponseLengthForInference")
    return jobs.JobSpec(
        job_name=str(properties["JobName"]),
        custom_model_name=str(properties["CustomModelName"]),
        role_arn=str(properties["RoleArn"]),
        base_model_identifier=str(properties["BaseModelIdentifier"]),
        customization_type=str(properties["CustomizationType"]),
        output_data_uri=str(properties["OutputDataUri"]),
        # Jobs of earlier versions could train on invocation logs; their Delete still comes.
        training_data_uri=str(properties.get("TrainingDataUri", "")),
        validation_data_uris=tuple(properties.get("ValidationDataUris", ())),
        teacher_model_identifier=properties.get("TeacherModelIdentifier"),
        max_response_length_for_inference=int(length) if length else None,
        hyper_parameters=dict(properties.get("HyperParameters", {})),
        # Sorted, because another order does not mean another job.
        subnet_ids=tuple(sorted(properties.get("SubnetIds", ()))),
        security_group_ids=tuple(sorted(properties.get("SecurityGroupIds", ()))),
        custom_model_kms_key_id=properties.get("CustomModelKmsKeyId"),
        fallback_model=properties.get("FallbackModel"),
        tags=dict(properties.get("Tags", {})),
    )


def with_files(spec: jobs.JobSpec, files: Mapping[str, str]) -> jobs.JobSpec:
    """Return the specification with the SHA-256 of the published files in its tags."""
    known = {"training": TRAINING_TAG, "holdout": HOLDOUT_TAG}
    return replace(
        spec, tags={**spec.tags, **{tag: files[name] for name, tag in known.items() if name in files}}
    )


def _sync_tags(bedrock: Any, spec: jobs.JobSpec, old: Mapping[str, Any]) -> None:
    """Set the properties' tags on all attempts and their models."""
    before = dict(old.get("Tags", {}))
    if before == dict(spec.tags):
        return
    # A release that is rolled back alone needs the hash of the hold-out set before.
    kept = {tag for tag in (*before, *spec.tags) if tag.startswith(f"{HOLDOUT_TAG}:")}
    for job in _attempts(bedrock, spec):
        for arn in filter(None, (job["jobArn"], job.get("outputModelArn"))):
            present = ownership.read_tags(bedrock, arn) or {}
            others = {tag for tag in present if tag.startswith(f"{HOLDOUT_TAG}:")}
            ownership.add_tags(bedrock, arn, spec.tags)
            if gone := sorted(({*before, *others} - spec.tags.keys()) - kept):
                ownership.remove_tags(bedrock, arn, gone)
