"""Custom resource DistillationJob: starts one Bedrock customization job and returns at once.

The physical id is the job's name, known before anything is created, so that CloudFormation can always
delete what a create began. Update never destroys: another name is another job, and the old one goes with
CloudFormation's Delete once everything else has succeeded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from shared import jobs, models
from shared.clients import client
from shared.custom_resource import Event, answer, complete, pending, shortened, truth
from shared.errors import ResourceError, or_none
from shared.naming import bedrock_tags
from shared.storage import deadline, purge

logger = Logger()


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    try:
        return handle(request, client("bedrock"))
    except ResourceError as error:
        raise ResourceError(shortened(str(error))) from error


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event)
    try:
        return check(request, client("bedrock"), client("s3"))
    except ResourceError as error:
        raise ResourceError(shortened(str(error))) from error


def handle(event: Event, bedrock: Any) -> dict[str, Any]:
    """Create or adopt the job on Create and Update; ask for its end on Delete."""
    if event.is_delete:
        name = event.physical_id or ""
        if not _is_job_name(event, name):
            logger.info("nothing to delete: not a job of this resource", physical_id=name)
            return answer(name)
        jobs.stop(bedrock, name)
        return answer(name)
    spec = job_spec(event.properties)
    if event.request_type == "Update" and event.physical_id == spec.job_name:
        _sync_tags(bedrock, spec, event.old_properties)
        return answer(spec.job_name)
    jobs.ensure(bedrock, spec, allow_legacy=truth(event.properties.get("AllowLegacy", "false")))
    return answer(spec.job_name)


def check(event: Event, bedrock: Any, s3: Any) -> dict[str, Any]:
    """Whether the job exists (Create, Update), or has ended and its model is gone (Delete)."""
    name = str(event.physical_id)
    if event.is_delete:
        return _check_deleted(event, bedrock, s3, name)
    job = jobs.find(bedrock, name)
    if job is None:
        raise ResourceError(
            f"Bedrock did not confirm job {name} and knows no job of that name, so nothing runs. Deploy again."
        )
    return complete({"JobName": name, "JobArn": job["jobArn"], "Status": job["status"]})


def _check_deleted(event: Event, bedrock: Any, s3: Any, name: str) -> dict[str, Any]:
    if not _is_job_name(event, name):
        return complete()
    if not jobs.stop(bedrock, name):
        return pending()
    if not truth(event.properties.get("RetainOutput", "true")) and not _purge_output(event, s3):
        return pending()
    if truth(event.properties.get("RetainModel", "false")):
        return complete()
    model = models.find(bedrock, str(event.properties["CustomModelName"]))
    if model is None:
        return complete()
    users = models.users(bedrock, model["modelArn"])
    if users:
        # A replaced job's model serves until its successor has passed. Its release retires it then.
        logger.info("model kept: it is in use", model=model["modelArn"], used_by=users)
        return complete()
    return complete() if models.delete(bedrock, model["modelArn"]) else pending()


def _purge_output(event: Event, s3: Any) -> bool:
    """Remove what the job wrote, a while at a time: a call has five minutes."""
    bucket, _, prefix = str(event.properties["OutputDataUri"]).removeprefix("s3://").partition("/")
    return purge(s3, bucket, prefix, until=deadline(60))


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
    model = models.find(bedrock, spec.custom_model_name)
    gone = sorted(before.keys() - spec.tags.keys())
    for arn in [found["jobArn"] for found in [job] if found] + [m["modelArn"] for m in [model] if m]:
        or_none(bedrock.tag_resource, resourceARN=arn, tags=bedrock_tags(spec.tags))
        if gone:
            or_none(bedrock.untag_resource, resourceARN=arn, tagKeys=gone)
