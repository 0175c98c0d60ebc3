"""Custom resource DistillationJob: start a Bedrock customization job, without waiting for its end.

The physical id is the job's name. onEvent only returns it and makes no calls; isComplete does the work. The
reason: the framework drops the Delete that follows a failed onEvent. If isComplete fails or crashes,
CloudFormation knows the name and its Delete stops the job. Besides, only isComplete is retried.

An Update never deletes a job. Another name is another job, and CloudFormation deletes the old one after the
update has succeeded. Bedrock can't change a job, so an Update that would need that fails. Further attempts
that a release created under the job's name belong to this resource, too.

Claims say whose the job is (`bedrock.ownership`). A Delete removes this resource's claim from the job's
attempts and models, and stops and deletes those that nobody else claims. It finds them by the properties, not
by the physical id, which CloudFormation invents if a Create has never answered.

With `MadeLater` the resource only checks the models, and a state machine calls `create_job` when the data is
ready. The job still belongs to the resource, and its Delete stops it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
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
from distilled_router.aws.state_machine import StageResult, done, failed, wait_if_transient, waiting
from distilled_router.aws.storage import PURGE_SECONDS, deadline, purge
from distilled_router.bedrock import jobs, models, ownership
from distilled_router.bedrock.naming import OWNER_TAG, digest_of
from distilled_router.bedrock.ownership import CLAIM_TAG, Claimant
from distilled_router.env import CreateJobEnv, ResourceEnv

logger = Logger()

# It can take about two minutes until a new role can be assumed.
CREATE_WAIT_SECONDS = 120
# Poll interval of the state machine.
RETRY_SECONDS = 15
DROPPED_TAG = "distilled-router:dropped:"


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
    env, execution = CreateJobEnv.read(), str(event["execution"])
    claimant = Claimant(env.stack_id, env.logical_id)
    spec = _claimed(job_spec(event["properties"]), claimant, request=execution.rpartition(":")[2])
    legacy = is_true(event["properties"].get("AllowLegacy", "false"))
    bedrock, stepfunctions = client("bedrock"), client("stepfunctions")

    def is_wanted() -> bool:
        return executions.is_open(executions.find(stepfunctions, execution))

    return wait_if_transient(
        lambda: create_if_wanted(spec, claimant, bedrock, is_wanted, allow_legacy=legacy), RETRY_SECONDS
    )


def create_if_wanted(
    spec: jobs.JobSpec,
    claimant: Claimant,
    bedrock: Any,
    is_wanted: Callable[[], bool],
    *,
    allow_legacy: bool,
) -> StageResult:
    """Create the job if `is_wanted` returns that the execution still runs."""
    if not is_wanted():
        return failed(f"job {spec.job_name} was not created: the execution was stopped")
    try:
        arn = jobs.adopt(bedrock, spec, claimant)
        if arn is None:
            jobs.check_models(bedrock, spec, allow_legacy=allow_legacy)
            arn = jobs.create(bedrock, spec)
    except NotYetError as error:
        return waiting(str(error), RETRY_SECONDS)
    except ResourceError as error:
        return failed(str(error))
    if not is_wanted():
        # The execution stopped during the call; the resource's Delete may have listed jobs before it.
        _stop_unclaimed(bedrock, arn, claimant)
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
    if event.is_delete:
        return complete() if _is_deleted(event, bedrock, s3) else pending()
    name, requested_at = str(event.physical_id), event.raw.get("RequestedAt")
    if requested_at is None and not _is_changed_in_place(event, bedrock, s3):
        return pending()
    may_wait = requested_at is not None and now() - float(requested_at) < CREATE_WAIT_SECONDS
    spec = _claimed(job_spec(event.properties), Claimant.of(event), request=event.request_id)
    is_created_later = is_true(event.properties.get("MadeLater", "false"))
    if requested_at is not None:
        try:
            today = datetime.fromtimestamp(now(), UTC)
            _create(event, spec, bedrock, today, is_created_later=is_created_later)
        except NotYetError as error:
            if not may_wait:
                raise
            logger.info("retrying later", reason=str(error))
            return pending()
    job = jobs.latest(bedrock, name)
    if job is None and not is_created_later and not may_wait:
        job = confirmed(lambda: jobs.latest(bedrock, name), event.absence_seconds)
    if job:
        return complete(jobs.attributes(job))
    if is_created_later:
        return complete(jobs.planned_attributes(spec))
    if may_wait:
        return pending()
    raise ResourceError(f"Job {name} does not exist in Bedrock. Set distillation.nonce to create a new one.")


def _create(
    event: Event, spec: jobs.JobSpec, bedrock: Any, today: datetime, *, is_created_later: bool
) -> None:
    """Adopt the job or, unless a state machine does that later, create it.

    Raises SupersededError if CloudFormation has abandoned the request; a job just created is stopped then.
    """
    claimant = Claimant.of(event)
    event.check_newest()
    if arn := jobs.adopt(bedrock, spec, claimant):
        if _dropped(claimant) in (ownership.read_tags(bedrock, arn) or {}):
            ownership.remove_tags(bedrock, arn, [_dropped(claimant)])
        return
    legacy = is_true(event.properties.get("AllowLegacy", "false"))
    jobs.check_models(bedrock, spec, allow_legacy=legacy, today=today)
    if is_created_later:
        return
    event.check_newest()
    arn = jobs.create(bedrock, spec)
    try:
        event.check_newest()
    except SupersededError:
        _stop_unclaimed(bedrock, arn, claimant)
        raise


def _claimed(spec: jobs.JobSpec, claimant: Claimant, *, request: str) -> jobs.JobSpec:
    """Return the job with the tags that say whose it is."""
    owner = str(spec.tags.get(OWNER_TAG, ""))
    return replace(spec, tags={**spec.tags, **claimant.tags(owner, request=request)})


def _stop_unclaimed(bedrock: Any, arn: str, claimant: Claimant) -> None:
    """Remove the claim on a job, and stop the job if nobody else claims it."""
    if ownership.release(bedrock, arn, claimant) and (job := jobs.find(bedrock, arn)):
        jobs.stop(bedrock, job)


def _is_changed_in_place(event: Event, bedrock: Any, s3: Any) -> bool:
    """Continue an Update under the same name; return whether it is complete.

    Raises ResourceError for a change that the job can't take.
    """
    spec, old = job_spec(event.properties), _old_spec(event.old_properties)
    if old and old.job_name == spec.job_name:
        _refuse_lost_changes(bedrock, spec, old)
    elif old and not _is_released(event, old, bedrock, s3):
        # CloudFormation rolls back a failed replacement. It never got the new name and won't delete that job.
        return False
    _sync_tags(bedrock, spec, event.old_properties)
    return True


def _is_deleted(event: Event, bedrock: Any, s3: Any) -> bool:
    """Continue the deletion; return whether nothing of this resource's job is left."""
    spec, physical_id = _old_spec(event.properties), str(event.physical_id)
    owner = str(spec.tags.get(OWNER_TAG, "")) if spec else ""
    if spec is None or (physical_id != spec.job_name and digest_of(owner, physical_id)):
        logger.info("nothing to delete: not the job of these properties", physical_id=physical_id)
        return True
    return _is_released(event, spec, bedrock, s3)


def _is_released(event: Event, spec: jobs.JobSpec, bedrock: Any, s3: Any) -> bool:
    """Remove this resource's claim on a job; return whether all that nobody else claims is gone.

    That are the job's attempts, which are stopped, their output and their models. The claim goes first: a
    release that retries the job reads it, so no attempt is created after the look at the attempts.
    """
    claimant = Claimant.of(event)
    for job in _attempts(bedrock, spec):
        _release(bedrock, job, claimant)
    found = _attempts(bedrock, spec)
    if not found:
        logger.info("nothing to delete: this owner has no job of this name", job=spec.job_name)
        return True
    kept = [job for job in found if not ownership.release(bedrock, job["jobArn"], claimant)]
    if kept:
        logger.info("job kept: another resource claims it", job=spec.job_name)
    elif not _are_stopped(bedrock, found) or not _is_output_gone(event, spec, s3):
        return False
    released = [_is_model_released(event, bedrock, job) for job in found if job.get("outputModelArn")]
    return all(released)


def _release(bedrock: Any, job: Mapping[str, Any], claimant: Claimant) -> None:
    """Remove the claim on a job, if there is one."""
    is_held = claimant.holds(ownership.read_tags(bedrock, job["jobArn"]) or {})
    if is_held and not ownership.release(bedrock, job["jobArn"], claimant) and not job.get("outputModelArn"):
        ownership.add_tags(bedrock, job["jobArn"], {_dropped(claimant): "true"})


def _dropped(claimant: Claimant) -> str:
    """Return the key of a tag on a job: its model's claim of this claimant is void.

    A model that does not exist yet gets the claims that the job had when it was created.
    """
    return claimant.key.replace(CLAIM_TAG, DROPPED_TAG)


def _is_model_released(event: Event, bedrock: Any, job: Mapping[str, Any]) -> bool:
    """Remove the claim on a job's model, and delete it if nobody else claims it; return whether that is done.

    A model that is still in use stays without a claim. The sweeper deletes it later.
    """
    model, claimant = str(job["outputModelArn"]), Claimant.of(event)
    dropped = [
        key for key in ownership.read_tags(bedrock, job["jobArn"]) or {} if key.startswith(DROPPED_TAG)
    ]
    present = ownership.read_tags(bedrock, model) or {}
    if void := [claim for key in dropped if (claim := key.replace(DROPPED_TAG, CLAIM_TAG)) in present]:
        ownership.remove_tags(bedrock, model, void)
    may_delete = ownership.release(bedrock, model, claimant)
    if not may_delete or is_true(event.properties.get("RetainModel", "false")):
        return True
    if users := models.users(bedrock, model):
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


def _old_spec(properties: Mapping[str, Any]) -> jobs.JobSpec | None:
    """Return the job of properties that CloudFormation goes back from; None if they are invalid.

    Invalid ones mean that the event rolls back an operation that failed because of them.
    """
    try:
        return job_spec(properties)
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


def _is_output_gone(event: Event, spec: jobs.JobSpec, s3: Any) -> bool:
    """Remove the job's output unless it is retained; return whether that is done."""
    if is_true(event.properties.get("RetainOutput", "true")):
        return True
    bucket, _, prefix = spec.output_data_uri.removeprefix("s3://").partition("/")
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
            ownership.add_tags(bedrock, arn, spec.tags)
            if gone:
                ownership.remove_tags(bedrock, arn, gone)
