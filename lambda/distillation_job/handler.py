"""Custom resource DistillationJob: starts one Bedrock customization job and does not wait for its end.

The physical id is the job's name, known before anything is created. onEvent only answers with it, and makes
no call that could fail; isComplete does the work. The framework swallows the Delete that follows an onEvent
which failed, while a failure of isComplete, even a crash, leaves CloudFormation with the name, and its Delete
stops the job. And what fails for a reason that passes is asked again by isComplete only.

Update never destroys what CloudFormation knows: another name is another job, and the old one goes with
CloudFormation's Delete once everything else has succeeded. Bedrock can't change a job, so an Update that
would need it is refused. A release may have made further attempts under the job's name: they are this
resource's too.

With `MadeLater` the resource checks the models and leaves the job to a state machine, which calls
`create_job` once the data is there. The job is the resource's from the first deployment on: its Delete stops
it.
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

logger = Logger()

# A new role can't be assumed for up to about two minutes; a lost answer is known sooner.
CREATE_WAIT_SECONDS = 120
# How soon a state machine asks again.
MAKE_SECONDS = 15


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    return answer_event(lambda: handle(request))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event)
    return answer_poll(lambda: check(request, client("bedrock"), client("s3")))


def create_job(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage of a state machine: make the job that the resource left to it, whose data is there now.

    `properties` are the resource's, `execution` is the one that asks.
    """
    del context
    spec, execution = job_spec(event["properties"]), str(event["execution"])
    legacy = is_true(event["properties"].get("AllowLegacy", "false"))
    bedrock, stepfunctions = client("bedrock"), client("stepfunctions")

    def is_wanted() -> bool:
        return executions.is_open(executions.find(stepfunctions, execution))

    return wait_if_transient(lambda: made(spec, bedrock, is_wanted, allow_legacy=legacy), MAKE_SECONDS)


def made(
    spec: jobs.JobSpec, bedrock: Any, is_wanted: Callable[[], bool], *, allow_legacy: bool
) -> StageResult:
    """Make the job, unless nobody wants it any more."""
    if not is_wanted():
        return failed(f"job {spec.job_name} is not made: the execution was stopped")
    try:
        arn = jobs.ensure(bedrock, spec, allow_legacy=allow_legacy)
    except NotYetError as error:
        return waiting(str(error), MAKE_SECONDS)
    except ResourceError as error:
        return failed(str(error))
    if not is_wanted():
        # Stopped while the job was made: the resource's Delete may have looked for it before.
        if job := jobs.find(bedrock, arn):
            jobs.stop(bedrock, job)
        return failed(f"job {spec.job_name} is stopped again: the execution was stopped")
    return done(f"job {arn} is made")


def handle(event: Event, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Name the job, and say since when it is asked for where it may have to be made."""
    if event.is_delete:
        return answer(event.physical_id or "")
    name = job_spec(event.properties).job_name
    is_in_place = event.request_type == "Update" and event.physical_id == name
    return answer(name) if is_in_place else answer(name, AskedAt=now())


def check(event: Event, bedrock: Any, s3: Any, now: Callable[[], float] = time.time) -> dict[str, Any]:
    """Make or change the job and say whether it exists, or on Delete whether all has ended."""
    name = str(event.physical_id)
    if event.is_delete:
        return complete() if _is_deleted(event, bedrock, s3, name) else pending()
    if "AskedAt" not in event.raw and not _is_changed_in_place(event, bedrock):
        return pending()
    asked_at = event.raw.get("AskedAt")
    may_wait = asked_at is not None and now() - float(asked_at) < CREATE_WAIT_SECONDS
    spec = job_spec(event.properties)
    is_left = is_true(event.properties.get("MadeLater", "false")) and not jobs.find(bedrock, name)
    if asked_at is not None:
        legacy = is_true(event.properties.get("AllowLegacy", "false"))
        today = datetime.fromtimestamp(now(), UTC)
        if is_left:
            jobs.check_models(bedrock, spec, allow_legacy=legacy, today=today)
            return complete(jobs.planned_attributes(spec))
        try:
            jobs.ensure(bedrock, spec, allow_legacy=legacy, today=today)
        except NotYetError as error:
            if not may_wait:
                raise
            logger.info("asked again later", reason=str(error))
            return pending()
    job = jobs.latest(bedrock, name)
    if job:
        return complete(jobs.attributes(job))
    if is_left:
        return complete(jobs.planned_attributes(spec))
    if may_wait:
        return pending()
    raise ResourceError(
        f"Bedrock knows no job {name}, so nothing runs. Set distillation.nonce for a new one."
    )


def _is_changed_in_place(event: Event, bedrock: Any) -> bool:
    """Whether an Update under the same name is carried out. Goes on with it; raises for what can't be."""
    spec, old = job_spec(event.properties), _old_spec(event)
    if old and old.job_name == spec.job_name:
        _refuse_lost_changes(bedrock, spec, old)
    elif old and not _are_stopped(bedrock, _attempts(bedrock, old)):
        # A replacement failed. CloudFormation takes the update back and still has the old name: it never
        # learnt the new one, and would never delete it.
        return False
    _sync_tags(bedrock, spec, event.old_properties)
    return True


def _is_deleted(event: Event, bedrock: Any, s3: Any, name: str) -> bool:
    """Whether all attempts have ended and what they made is gone, but for what is kept. Goes on with it."""
    if not _is_job_name(event, name):
        logger.info("nothing to delete: not a job of this resource", physical_id=name)
        return True
    found = _attempts(bedrock, job_spec(event.properties))
    if not found:
        logger.info("nothing to delete: no job of this name is ours", job=name)
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
    """Whether a job left no model, or its model is deleted, or is to stay for now."""
    if model is None:
        return True
    users = models.users(bedrock, model)
    if users:
        # A replaced job's model serves until its successor has passed. Its release removes it then, and must
        # know that nobody else will.
        models.close(bedrock, model)
        logger.info("model kept: it is in use", model=model, used_by=users)
        return True
    return models.delete(bedrock, model)


def _attempts(bedrock: Any, spec: jobs.JobSpec) -> list[dict[str, Any]]:
    """Every job of the spec's name that is ours, first to last."""
    return [job for job in jobs.attempts(bedrock, spec.job_name) if jobs.is_ours(bedrock, spec, job)]


def _are_stopped(bedrock: Any, found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether none of these jobs runs. Stops those that do."""
    ended = [jobs.stop(bedrock, job) for job in found]
    return all(ended)


def _old_spec(event: Event) -> jobs.JobSpec | None:
    """What was declared before, or None where it describes no job: this event then takes back an update that
    was refused for it, and no job was made from it."""
    try:
        return job_spec(event.old_properties)
    except (KeyError, ValueError):
        return None


def _refuse_lost_changes(bedrock: Any, spec: jobs.JobSpec, old: jobs.JobSpec) -> None:
    """Raise where the job was made from the old properties and can't become what the new ones describe.

    Where it wasn't, this may be CloudFormation taking back an update that was refused here: its old
    properties are then the refused ones, and the job is what it is to be again.
    """
    before, after = old.decisive(), spec.decisive()
    changed = [name for name in after if after[name] != before[name]]
    job = jobs.find(bedrock, spec.job_name) if changed else None
    if job is None or job.get("clientRequestToken") != old.token:
        return
    told = "; ".join(f"{name} is {_shown(before[name])}, not {_shown(after[name])}" for name in changed)
    raise ResourceError(
        f"Job {spec.job_name} was made otherwise, and Bedrock can't change a job: {told}. Set another nonce "
        "(distillation.nonce in the environment's settings) to pay for a new job, or take the change back."
    )


def _shown(value: Any) -> str:
    return json.dumps(value) if value or value is False else "nothing"


def _purge_output(event: Event, s3: Any) -> bool:
    """Remove what the job wrote, a while at a time: a call has five minutes."""
    bucket, _, prefix = str(event.properties["OutputDataUri"]).removeprefix("s3://").partition("/")
    return purge(s3, bucket, prefix, until=deadline(PURGE_SECONDS))


def _is_job_name(event: Event, name: str) -> bool:
    """CloudFormation invents an id for a resource whose create never answered; such a one is not a job."""
    return bool(name) and name == event.properties.get("JobName")


def job_spec(properties: Mapping[str, Any]) -> jobs.JobSpec:
    """The job that the resource's properties describe; CloudFormation sends every value as a string.

    Raises KeyError and ValueError for properties that describe none.
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
        # Their order means nothing: another one is no other job.
        subnet_ids=tuple(sorted(properties.get("SubnetIds", ()))),
        security_group_ids=tuple(sorted(properties.get("SecurityGroupIds", ()))),
        custom_model_kms_key_id=properties.get("CustomModelKmsKeyId"),
        tags=dict(properties.get("Tags", {})),
    )


def _sync_tags(bedrock: Any, spec: jobs.JobSpec, old: Mapping[str, Any]) -> None:
    """Bring the tags of all attempts, and of a model where there is one, to what the properties say."""
    before = dict(old.get("Tags", {}))
    if before == dict(spec.tags):
        return
    gone = sorted(before.keys() - spec.tags.keys())
    for job in _attempts(bedrock, spec):
        for arn in filter(None, (job["jobArn"], job.get("outputModelArn"))):
            models.tag(bedrock, arn, spec.tags)
            if gone:
                models.untag(bedrock, arn, gone)
