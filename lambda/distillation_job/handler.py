"""Custom resource DistillationJob: start a Bedrock customization job, without waiting for its end.

The physical id is the job's name. onEvent only returns it and makes no calls; isComplete does the work. The
reason: the framework drops the Delete that follows a failed onEvent. If isComplete fails or crashes,
CloudFormation knows the name and its Delete stops the job. Besides, only isComplete is retried.

An Update never deletes a job. Another name is another job, and CloudFormation deletes the old one after the
update has succeeded. Bedrock can't change a job, so an Update that would need that fails. Further attempts
that a release created under the job's name belong to this resource, too.

With `MadeLater` the resource only checks the models, and a state machine calls `create_job` when the data is
ready. The job still belongs to the resource, and its Delete stops it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws import executions
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
from distilled_router.aws.state_machine import StageResult, done, failed, wait_if_transient, waiting
from distilled_router.aws.storage import PURGE_SECONDS, deadline, purge
from distilled_router.bedrock import jobs, models
from distilled_router.env import ResourceEnv

logger = Logger()

# It can take about two minutes until a new role can be assumed.
CREATE_WAIT_SECONDS = 120
# Poll interval of the state machine.
RETRY_SECONDS = 15


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_event(request, lambda: handle(request))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_poll(request, lambda: check(request, client("bedrock"), client("s3")))


def create_job(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step of a state machine: create a resource's job now that its data is ready.

    The event has the resource's `properties` and the ARN of the calling `execution`.
    """
    del context
    spec, execution = job_spec(event["properties"]), str(event["execution"])
    legacy = is_true(event["properties"].get("AllowLegacy", "false"))
    bedrock, stepfunctions = client("bedrock"), client("stepfunctions")

    def is_wanted() -> bool:
        return executions.is_open(executions.find(stepfunctions, execution))

    return wait_if_transient(
        lambda: create_if_wanted(spec, bedrock, is_wanted, allow_legacy=legacy), RETRY_SECONDS
    )


def create_if_wanted(
    spec: jobs.JobSpec, bedrock: Any, is_wanted: Callable[[], bool], *, allow_legacy: bool
) -> StageResult:
    """Create the job if `is_wanted` returns that the execution still runs."""
    if not is_wanted():
        return failed(f"job {spec.job_name} was not created: the execution was stopped")
    try:
        arn = jobs.ensure(bedrock, spec, allow_legacy=allow_legacy)
    except NotYetError as error:
        return waiting(str(error), RETRY_SECONDS)
    except ResourceError as error:
        return failed(str(error))
    if not is_wanted():
        # The execution stopped during the call; the resource's Delete may have listed jobs before it.
        if job := jobs.find(bedrock, arn):
            jobs.stop(bedrock, job)
        return failed(f"job {spec.job_name} was stopped, since the execution was stopped")
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
    name = str(event.physical_id)
    if event.is_delete:
        return complete() if _is_deleted(event, bedrock, s3, name) else pending()
    if "RequestedAt" not in event.raw and not _is_changed_in_place(event, bedrock):
        return pending()
    requested_at = event.raw.get("RequestedAt")
    may_wait = requested_at is not None and now() - float(requested_at) < CREATE_WAIT_SECONDS
    spec = job_spec(event.properties)
    is_created_later = is_true(event.properties.get("MadeLater", "false")) and not jobs.find(bedrock, name)
    if requested_at is not None:
        legacy = is_true(event.properties.get("AllowLegacy", "false"))
        today = datetime.fromtimestamp(now(), UTC)
        if is_created_later:
            jobs.check_models(bedrock, spec, allow_legacy=legacy, today=today)
            return complete(jobs.planned_attributes(spec))
        try:
            jobs.ensure(bedrock, spec, allow_legacy=legacy, today=today)
        except NotYetError as error:
            if not may_wait:
                raise
            logger.info("retrying later", reason=str(error))
            return pending()
    job = jobs.latest(bedrock, name)
    if job:
        return complete(jobs.attributes(job))
    if is_created_later:
        return complete(jobs.planned_attributes(spec))
    if may_wait:
        return pending()
    raise ResourceError(f"Job {name} does not exist in Bedrock. Set distillation.nonce to create a new one.")


def _is_changed_in_place(event: Event, bedrock: Any) -> bool:
    """Continue an Update under the same name; return whether it is complete.

    Raises ResourceError for a change that the job can't take.
    """
    spec, old = job_spec(event.properties), _old_spec(event)
    if old and old.job_name == spec.job_name:
        _refuse_lost_changes(bedrock, spec, old)
    elif old and not _are_stopped(bedrock, _attempts(bedrock, old)):
        # CloudFormation rolls back a failed replacement. It never got the new name and won't delete that job.
        return False
    _sync_tags(bedrock, spec, event.old_properties)
    return True


def _is_deleted(event: Event, bedrock: Any, s3: Any, name: str) -> bool:
    """Continue the deletion; return whether all attempts have ended, and their output and models are gone."""
    if not _is_job_name(event, name):
        logger.info("nothing to delete: not a job of this resource", physical_id=name)
        return True
    found = _attempts(bedrock, job_spec(event.properties))
    if not found:
        logger.info("nothing to delete: this owner has no job of this name", job=name)
        return True
    if not _are_stopped(bedrock, found):
        return False
    if not is_true(event.properties.get("RetainOutput", "true")) and not _purge_output(event, s3):
        return False
    if is_true(event.properties.get("RetainModel", "false")):
        return True
    gone = [_is_model_gone(bedrock, job.get("outputModelArn")) for job in found]
    return all(gone)


def _is_model_gone(bedrock: Any, model: str | None) -> bool:
    """Delete a job's model unless it is in use; return whether nothing is left to do."""
    if model is None:
        return True
    users = models.users(bedrock, model)
    if users:
        # A replaced job's model serves until its successor passes. The sweeper deletes models with this tag.
        models.close(bedrock, model)
        logger.info("model kept: it is in use", model=model, used_by=users)
        return True
    return models.delete(bedrock, model)


def _attempts(bedrock: Any, spec: jobs.JobSpec) -> list[dict[str, Any]]:
    """Return this owner's attempts of the job, first to last."""
    return [job for job in jobs.attempts(bedrock, spec.job_name) if jobs.is_ours(bedrock, spec, job)]


def _are_stopped(bedrock: Any, found: Sequence[Mapping[str, Any]]) -> bool:
    """Stop the jobs that run; return whether none does."""
    ended = [jobs.stop(bedrock, job) for job in found]
    return all(ended)


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


def _purge_output(event: Event, s3: Any) -> bool:
    """Remove the job's output within the time of one call; return whether all is gone."""
    bucket, _, prefix = str(event.properties["OutputDataUri"]).removeprefix("s3://").partition("/")
    return purge(s3, bucket, prefix, until=deadline(PURGE_SECONDS))


def _is_job_name(event: Event, name: str) -> bool:
    """Return whether the id is the job's name: CloudFormation generates one if create never answered."""
    return bool(name) and name == event.properties.get("JobName")


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
        training_data_uri=properties.get("TrainingDataUri"),
        invocation_logs_uri=properties.get("InvocationLogsUri"),
        use_prompt_response=is_true(properties.get("UsePromptResponse", "false")),
        request_metadata=dict(properties.get("RequestMetadata", {})),
        validation_data_uris=tuple(properties.get("ValidationDataUris", ())),
        teacher_model_identifier=properties.get("TeacherModelIdentifier"),
        max_response_length_for_inference=int(length) if length else None,
        hyper_parameters=dict(properties.get("HyperParameters", {})),
        # Sorted, because another order does not mean another job.
        subnet_ids=tuple(sorted(properties.get("SubnetIds", ()))),
        security_group_ids=tuple(sorted(properties.get("SecurityGroupIds", ()))),
        custom_model_kms_key_id=properties.get("CustomModelKmsKeyId"),
        tags=dict(properties.get("Tags", {})),
    )


def _sync_tags(bedrock: Any, spec: jobs.JobSpec, old: Mapping[str, Any]) -> None:
    """Set the properties' tags on all attempts and their models."""
    before = dict(old.get("Tags", {}))
    if before == dict(spec.tags):
        return
    gone = sorted(before.keys() - spec.tags.keys())
    for job in _attempts(bedrock, spec):
        for arn in filter(None, (job["jobArn"], job.get("outputModelArn"))):
            models.tag(bedrock, arn, spec.tags)
            if gone:
                models.untag(bedrock, arn, gone)
