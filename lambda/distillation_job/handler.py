"""Custom resource DistillationJob: starts one Bedrock customization job and does not wait for its end.

The physical id is the job's name, known before anything is created. onEvent only answers with it; isComplete
makes the job. The framework swallows the Delete that follows an onEvent which failed, while a failure of
isComplete, even a crash, leaves CloudFormation with the name, and its Delete stops the job.

Update never destroys what CloudFormation knows: another name is another job, and the old one goes with
CloudFormation's Delete once everything else has succeeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from shared import jobs, models
from shared.clients import client
from shared.custom_resource import Event, answer, begun, complete, pending, polled, truth
from shared.errors import NotYetError, ResourceError, or_none
from shared.naming import bedrock_tags
from shared.storage import PURGE_SECONDS, deadline, purge

logger = Logger()

# A new role can't be assumed for up to about two minutes; a lost answer is known sooner.
CREATE_WAIT_SECONDS = 180


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    return begun(lambda: handle(request, client("bedrock")))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event)
    return polled(lambda: check(request, client("bedrock"), client("s3")))


def handle(event: Event, bedrock: Any, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Name the job on Create and Update; ask for its end on Delete."""
    if event.is_delete:
        name = event.physical_id or ""
        if not _is_job_name(event, name):
            logger.info("nothing to delete: not a job of this resource", physical_id=name)
        else:
            _stop_ours(bedrock, job_spec(event.properties))
        return answer(name)
    spec = job_spec(event.properties)
    if event.request_type == "Update" and event.physical_id == spec.job_name:
        _stop_stranded(bedrock, event)
        _sync_tags(bedrock, spec, event.old_properties)
        return answer(spec.job_name)
    return answer(spec.job_name, AskedAt=now())


def check(event: Event, bedrock: Any, s3: Any, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Make the job and say whether it exists (Create, Update), or whether all has ended (Delete)."""
    name = str(event.physical_id)
    if event.is_delete:
        return complete() if _is_deleted(event, bedrock, s3, name) else pending()
    asked_at = event.raw.get("AskedAt")
    may_wait = asked_at is not None and now() - float(asked_at) < CREATE_WAIT_SECONDS
    if asked_at is not None:
        legacy = truth(event.properties.get("AllowLegacy", "false"))
        today = datetime.fromtimestamp(now(), UTC)
        try:
            jobs.ensure(bedrock, job_spec(event.properties), allow_legacy=legacy, today=today)
        except NotYetError as error:
            if not may_wait:
                raise
            logger.info("asked again later", reason=str(error))
            return pending()
    job = jobs.find(bedrock, name)
    if job:
        return complete({"JobName": name, "JobArn": job["jobArn"], "Status": job["status"]})
    if may_wait:
        return pending()
    raise ResourceError(
        f"Bedrock knows no job {name}, so nothing runs. Set distillation.nonce for a new one."
    )


def _is_deleted(event: Event, bedrock: Any, s3: Any, name: str) -> bool:
    """Whether the job has ended and what it made is gone, but for what is retained. Goes on with it."""
    if not _is_job_name(event, name):
        return True
    job = jobs.find(bedrock, name)
    if job and not jobs.is_ours(bedrock, job_spec(event.properties), job):
        logger.info("nothing to delete: somebody else's job", job=job["jobArn"])
        return True
    if not jobs.stop(bedrock, name):
        return False
    if not truth(event.properties.get("RetainOutput", "true")) and not _purge_output(event, s3):
        return False
    # Looked at again: it may have completed before it could be stopped.
    job = jobs.find(bedrock, name)
    model = job.get("outputModelArn") if job else None
    if not model or truth(event.properties.get("RetainModel", "false")):
        return True
    users = models.users(bedrock, model)
    if users:
        # A replaced job's model serves until its successor has passed. Its release retires it then.
        logger.info("model kept: it is in use", model=model, used_by=users)
        return True
    return models.delete(bedrock, model)


def _stop_ours(bedrock: Any, spec: jobs.JobSpec) -> None:
    job = jobs.find(bedrock, spec.job_name)
    if job and jobs.is_ours(bedrock, spec, job):
        jobs.stop(bedrock, spec.job_name)


def _stop_stranded(bedrock: Any, event: Event) -> None:
    """Stop the job of a replacement that failed. CloudFormation then takes the update back and still has the
    old name: it never learnt the new one, and would never delete it."""
    if event.old_properties.get("JobName", event.physical_id) != event.physical_id:
        _stop_ours(bedrock, job_spec(event.old_properties))


def _purge_output(event: Event, s3: Any) -> bool:
    """Remove what the job wrote, a while at a time: a call has five minutes."""
    bucket, _, prefix = str(event.properties["OutputDataUri"]).removeprefix("s3://").partition("/")
    return purge(s3, bucket, prefix, until=deadline(PURGE_SECONDS))


def _is_job_name(event: Event, name: str) -> bool:
    """CloudFormation invents an id for a resource whose create never answered; such a one is not a job."""
    return bool(name) and name == event.properties.get("JobName")


def job_spec(properties: Mapping[str, Any]) -> jobs.JobSpec:
    """The job that the resource's properties describe; CloudFormation sends every value as a string."""
    length = properties.get("MaxResponseLengthForInference")
    return jobs.JobSpec(
        job_name=str(properties["JobName"]),
        custom_model_name=str(properties["CustomModelName"]),
        role_arn=str(properties["RoleArn"]),
        base_model_identifier=str(properties["BaseModelIdentifier"]),
        customization_type=str(properties["CustomizationType"]),
        training_data_uri=str(properties["TrainingDataUri"]),
        output_data_uri=str(properties["OutputDataUri"]),
        teacher_model_identifier=properties.get("TeacherModelIdentifier"),
        max_response_length=int(length) if length else None,
        hyper_parameters=dict(properties.get("HyperParameters", {})),
        kms_key_id=properties.get("CustomModelKmsKeyId"),
        tags=dict(properties.get("Tags", {})),
    )


def _sync_tags(bedrock: Any, spec: jobs.JobSpec, old: Mapping[str, Any]) -> None:
    """Bring the tags of the job, and of its model where it exists, to what the properties say."""
    before = dict(old.get("Tags", {}))
    if before == dict(spec.tags):
        return
    job = jobs.find(bedrock, spec.job_name)
    if job is None or not jobs.is_ours(bedrock, spec, job):
        return
    gone = sorted(before.keys() - spec.tags.keys())
    for arn in filter(None, (job["jobArn"], job.get("outputModelArn"))):
        or_none(bedrock.tag_resource, resourceARN=arn, tags=bedrock_tags(spec.tags))
        if gone:
            or_none(bedrock.untag_resource, resourceARN=arn, tagKeys=gone)
