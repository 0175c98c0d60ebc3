"""Create, find, retry and stop Bedrock model customization jobs.

A job's name can't be used again, since no operation deletes a job (botocore: bedrock has none). Names of this
package end in the digest of all that decides the model, so one name means one specification: an existing job
of that name with the expected token or tags is adopted instead of paying twice.

Some jobs fail because of an error inside Bedrock. They are retried as the next attempt, under the same name
with a number (`naming.attempt_name`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.absence import confirmed
from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_name_in_use,
    is_transient,
    or_none,
    with_retries,
)
from distilled_router.aws.fence import SupersededError, checked_before_each_try
from distilled_router.aws.objects import Published
from distilled_router.bedrock import ownership, roles
from distilled_router.bedrock.lifecycle import check_fallback, check_usable
from distilled_router.bedrock.models import base_model
from distilled_router.bedrock.naming import (
    DIGEST_TAG,
    MOST_ATTEMPTS,
    OWNER_TAG,
    TRAINING_TAG,
    attempt_name,
    bedrock_tags,
    digest_of,
    first_name,
)
from distilled_router.bedrock.ownership import CLAIM_TAG, DROPPED_TAG, REQUEST_TAG, Claimant

CREATE_JOB = "CreateModelCustomizationJob"
IN_PROGRESS = frozenset({"InProgress", "Stopping"})
DISTILLATION = "DISTILLATION"

# Fields that may change for the same job, or don't decide its model.
_FREE = frozenset(
    {
        "job_name",
        "custom_model_name",
        "role_arn",
        "output_data_uri",
        "subnet_ids",
        "security_group_ids",
        "fallback_model",
        "tags",
    }
)


# Earlier versions had these fields, so the tokens of existing jobs cover their defaults.
_FORMER: Mapping[str, Any] = {"InvocationLogsUri": None, "UsePromptResponse": False, "RequestMetadata": {}}

# Seconds for which stopping the job of a superseded request is repeated.
_UNDO_SECONDS = 60.0


class NameInUseError(NotYetError):
    """The job's name is in use, although no job of this name is found yet."""


@dataclass(frozen=True)
class Request:
    """The request for which a job is created.

    Attributes:
        claimant: the resource that needs the job.
        request_id: the id of CloudFormation's request, or the ARN of the execution that creates the job.
        check_newest: raises SupersededError if the job is not wanted any more.
        absence_seconds: for how long a job that may have been created for it must not be found, until this
            counts.
        check_data: raises ReplacedError if the job's training file is not the one that was published.
    """

    claimant: Claimant
    request_id: str
    check_newest: Callable[[], None] = lambda: None
    absence_seconds: float = 0.0
    check_data: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return the request in an event of CloudFormation."""
        return cls(Claimant.of(event), event.request_id, event.check_newest, event.absence_seconds)

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags of the claim and the request."""
        return {**self.claimant.tag, REQUEST_TAG: self.request_id}


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The specification of a job, as CreateModelCustomizationJob needs it.

    The fields in CamelCase are the custom resource's properties. `fallback_model` is no part of the job, but
    checked before it is paid for.
    """

    job_name: str
    custom_model_name: str
    role_arn: str
    base_model_identifier: str
    customization_type: str
    output_data_uri: str
    training_data_uri: str
    validation_data_uris: Sequence[str] = ()
    teacher_model_identifier: str | None = None
    max_response_length_for_inference: int | None = None
    hyper_parameters: Mapping[str, str] = field(default_factory=dict)
    subnet_ids: Sequence[str] = ()
    security_group_ids: Sequence[str] = ()
    custom_model_kms_key_id: str | None = None
    fallback_model: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def training(self) -> Published:
        """Return the training file with its SHA-256, if that is known."""
        return training_of(self.training_data_uri, self.tags)

    def decisive(self) -> dict[str, Any]:
        """Return the properties that decide the model, which the job's name stands for.

        A file in the job's output bucket is compared by its key: another bucket means the same job.
        """
        bucket = f"s3://{self.output_data_uri.removeprefix('s3://').partition('/')[0]}/"
        values = {known.name: getattr(self, known.name) for known in fields(self) if known.name not in _FREE}
        return {**_FORMER, **{_camel_case(name): _plain(value, bucket) for name, value in values.items()}}

    @property
    def token(self) -> str:
        """Return the client request token: the same for the same name and specification.

        So a create call that is sent twice creates one job.
        """
        return _token([self.job_name, self.decisive()])

    def request(self) -> dict[str, Any]:
        """Return the parameters of CreateModelCustomizationJob. Only DISTILLATION has a teacher."""
        tags = bedrock_tags(self.tags)
        request: dict[str, Any] = {
            "jobName": self.job_name,
            "customModelName": self.custom_model_name,
            "roleArn": self.role_arn,
            "clientRequestToken": self.token,
            "baseModelIdentifier": self.base_model_identifier,
            "customizationType": self.customization_type,
            "trainingDataConfig": {"s3Uri": self.training_data_uri},
            "outputDataConfig": {"s3Uri": self.output_data_uri},
            "jobTags": tags,
            "customModelTags": tags,
        }
        if self.teacher_model_identifier:
            teacher: dict[str, Any] = {"teacherModelIdentifier": self.teacher_model_identifier}
            if self.max_response_length_for_inference:
                teacher["maxResponseLengthForInference"] = self.max_response_length_for_inference
            request["customizationConfig"] = {"distillationConfig": {"teacherModelConfig": teacher}}
        if self.validation_data_uris:
            validators = [{"s3Uri": uri} for uri in self.validation_data_uris]
            request["validationDataConfig"] = {"validators": validators}
        if self.hyper_parameters:
            request["hyperParameters"] = dict(self.hyper_parameters)
        if self.subnet_ids:
            request["vpcConfig"] = {
                "subnetIds": list(self.subnet_ids),
                "securityGroupIds": list(self.security_group_ids),
            }
        if self.custom_model_kms_key_id:
            request["customModelKmsKeyId"] = self.custom_model_kms_key_id
        return request


def _camel_case(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))


def _plain(value: Any, bucket: str) -> Any:
    match value:
        case str():
            return value.removeprefix(bucket)
        case Mapping():
            return dict(value)
        case Sequence():
            return [_plain(item, bucket) for item in value]
        case _:
            return value


def _token(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def training_of(uri: str, tags: Mapping[str, str]) -> Published:
    """Return the training file of a job with these tags. Without the tag, nothing is checked."""
    return Published.at(uri, tags.get(TRAINING_TAG, "") if uri else "")


def check_training(bedrock: Any, s3: Any, job: Mapping[str, Any]) -> None:
    """Raise ReplacedError if a job's training file is not the one that was published for it.

    Bedrock takes no version of a file. So it is checked before the job is created and after it has ended.
    """
    uri = job.get("trainingDataConfig", {}).get("s3Uri") or ""
    training_of(uri, _tags(bedrock, job)).check(s3)


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """Return GetModelCustomizationJob's response, or None if no such job exists."""
    return or_none(bedrock.get_model_customization_job, jobIdentifier=name_or_arn)


def attempts(bedrock: Any, name: str) -> list[dict[str, Any]]:
    """Return all jobs that were created for a release of that name, first to last."""
    found = []
    for attempt in range(1, MOST_ATTEMPTS + 1):
        job = find(bedrock, attempt_name(name, attempt))
        if job is None:
            break
        found.append(job)
    return found


def latest(bedrock: Any, name: str) -> dict[str, Any] | None:
    """Return the job of the last attempt for a release of that name, or None if there is none."""
    found = attempts(bedrock, name)
    return found[-1] if found else None


def created_since(bedrock: Any, owner: str, since: float) -> dict[str, float]:
    """Return the times of an owner's jobs since an epoch second, by the names of their first attempts."""
    found = dict[str, float]()
    pages = bedrock.get_paginator("list_model_customization_jobs").paginate(
        creationTimeAfter=datetime.fromtimestamp(since, UTC), nameContains=owner
    )
    for page in pages:
        for job in page["modelCustomizationJobSummaries"]:
            name = str(job["jobName"])
            if digest_of(owner, name):
                found[first_name(name)] = job["creationTime"].timestamp()
    return found


def ensure(
    bedrock: Any, spec: JobSpec, request: Request, *, allow_legacy: bool, today: datetime | None = None
) -> str:
    """Create the job, or adopt the one that exists, and return its ARN. Does not retry.

    Raises:
        NotYetError: The call failed temporarily: the role can't be assumed yet, Bedrock throttles, or the
            response was lost. The token makes repeating it safe.
        NameInUseError: Bedrock knows the job, but its reads don't show it yet.
        ResourceError: Nothing was created: a model has ended, the name belongs to another owner, the training
            file was replaced, or Bedrock refuses the request.
        SupersededError: The request is superseded. A job that was created for it meanwhile is stopped.
    """
    existing = find(bedrock, spec.job_name)
    if existing is None:
        check_models(bedrock, spec, allow_legacy=allow_legacy, today=today)
        request.check_data()
    arn = spec.job_name
    try:
        with checked_before_each_try(bedrock, CREATE_JOB, request.check_newest):
            arn, existing = _adopted_or_created(bedrock, spec, request, existing)
        if existing:
            claim(bedrock, spec, request, existing)
        request.check_newest()
    except SupersededError:
        undo = partial(_undo, bedrock, arn, request)
        with_retries(undo, retryable=is_transient, seconds=_UNDO_SECONDS)
        raise
    return arn


def _adopted_or_created(
    bedrock: Any, spec: JobSpec, request: Request, existing: dict[str, Any] | None
) -> tuple[str, dict[str, Any] | None]:
    """Return the ARN of the job, and the job itself if it existed before."""
    if existing:
        request.check_newest()
        return _adopt(existing, ours=is_ours(bedrock, spec, existing)), existing
    claimed = replace(spec, tags={**spec.tags, **request.tags})
    return _create(bedrock, claimed.request(), lambda job: is_ours(bedrock, spec, job))


def claim(bedrock: Any, spec: JobSpec, request: Request, job: Mapping[str, Any]) -> None:
    """Claim `job`, the first attempt, all further attempts, and their models."""
    found = {str(each["jobArn"]): each for each in [job, *attempts(bedrock, spec.job_name)]}
    for arn, each in found.items():
        tags = _tags(bedrock, each)
        if not _is_ours(spec, each, tags):
            continue
        if not _is_asked_by(request, tags):
            ownership.add_tags(bedrock, arn, request.tags)
        model = each.get("outputModelArn")
        if model and not request.claimant.holds(ownership.read_tags(bedrock, model) or {}):
            ownership.claim(bedrock, model, request.claimant)


def _is_asked_by(request: Request, tags: Mapping[str, str]) -> bool:
    return request.claimant.holds(tags) and tags.get(REQUEST_TAG) == request.request_id


def _undo(bedrock: Any, name_or_arn: str, request: Request) -> None:
    """Stop the job and further attempts, except those that a newer request or another resource needs."""

    def is_asked(job: Mapping[str, Any]) -> bool:
        return _tags(bedrock, job).get(REQUEST_TAG) == request.request_id

    def of_request() -> dict[str, Any] | None:
        job = find(bedrock, name_or_arn)
        return job if job and is_asked(job) else None

    job = confirmed(of_request, request.absence_seconds)
    if job is None:
        return
    for each in (job, *filter(is_asked, attempts(bedrock, str(job["jobName"]))[1:])):
        if disclaim(bedrock, each, request.claimant):
            stop(bedrock, each)


def disclaim(bedrock: Any, job: Mapping[str, Any], claimant: Claimant) -> bool:
    """Remove a claim from a job and its model. Return whether nobody else claims the job.

    A job in progress that others claim keeps a note of it: its model will get the tags that were fixed when
    the job was created.
    """
    arn, model = str(job["jobArn"]), job.get("outputModelArn")
    tags = _tags(bedrock, job)
    if model is None and claimant.holds(tags) and not claimant.may_remove(tags):
        ownership.add_tags(bedrock, arn, {_dropped(claimant.key): "true"})
    is_last = ownership.release(bedrock, arn, claimant)
    if model:
        sync_claims(bedrock, arn, model)
        ownership.release(bedrock, model, claimant)
    return is_last


def sync_claims(bedrock: Any, job_arn: str, model_arn: str) -> None:
    """Give a model its job's claims, and remove those that the job lost before the model existed."""
    wanted, present = (ownership.read_tags(bedrock, arn) for arn in (job_arn, model_arn))
    if wanted is None or present is None:
        return
    claimed = ownership.claims(wanted)
    if missing := {key: text for key, text in claimed.items() if key not in present}:
        ownership.add_tags(bedrock, model_arn, missing)
    gone = [key for key in ownership.claims(present) if key not in claimed and _dropped(key) in wanted]
    if gone:
        ownership.remove_tags(bedrock, model_arn, gone)


def _dropped(key: str) -> str:
    """Return the key of the tag that notes on a job that this claim was removed."""
    return key.replace(CLAIM_TAG, DROPPED_TAG)


def check_models(bedrock: Any, spec: JobSpec, *, allow_legacy: bool, today: datetime | None = None) -> None:
    """Raise ResourceError if a model of the job has ended or is LEGACY, or the fallback can't answer."""
    asked = [spec.base_model_identifier]
    if spec.teacher_model_identifier:
        asked.append(spec.teacher_model_identifier)
    check_usable(bedrock, asked, allow_legacy=allow_legacy, today=today)
    if spec.fallback_model:
        check_fallback(bedrock, spec.fallback_model, allow_legacy=allow_legacy, today=today)


def failed_internally(job: Mapping[str, Any]) -> bool:
    """Return whether the job failed because of an error inside Bedrock.

    The message is "Encountered an internal error when processing the request." Such jobs succeeded later with
    the same data, and the failed ones were not charged.
    """
    return job["status"] == "Failed" and "internal error" in (job.get("failureMessage") or "").lower()


def retry(bedrock: Any, job: Mapping[str, Any], attempt: int, *, absence_seconds: float = 0) -> str:
    """Create a failed job again, as attempt number `attempt`, and return the new job's ARN.

    Everything except the names is taken from `job`, GetModelCustomizationJob's response. Calling it twice for
    the same attempt creates one job. Raises NotYetError and ResourceError as `ensure` does; the latter also
    if the first attempt lacks the owner's tag, or its resource is or was deleted meanwhile.
    """
    first = first_name(str(job["jobName"]))
    name = attempt_name(first, attempt)
    first_job = job if job["jobName"] == first else find(bedrock, first)
    deleted = ResourceError(f"Job {name} was not created: {unclaimed(first)}.")
    if first_job is None or not is_claimed(bedrock, first_job, absence_seconds):
        if first_job and _whose(_tags(bedrock, first_job)):
            raise deleted
        raise ResourceError(f"Job {name} was not created: {first} lacks the tag {OWNER_TAG}.")
    tags = {k: v for k, v in _tags(bedrock, first_job).items() if not k.startswith(DROPPED_TAG)}
    listed = bedrock_tags(tags)
    request = {
        **_request_of(job),
        "jobName": name,
        "customModelName": name,
        "clientRequestToken": _token(name),
        "jobTags": listed,
        "customModelTags": listed,
    }

    def is_mine(found: Mapping[str, Any]) -> bool:
        # The tags of a job that was created a moment ago may not be readable yet.
        is_same = found.get("clientRequestToken") == request["clientRequestToken"]
        return is_same or _whose(_tags(bedrock, found)) == _whose(tags)

    existing = find(bedrock, name)
    if existing:
        arn = _adopt(existing, ours=is_mine(existing))
    else:
        arn, _ = _create(bedrock, request, is_mine)
    if not is_claimed(bedrock, first_job, absence_seconds):
        # The resource was deleted in the meantime, perhaps before it could see the new job.
        if created := find(bedrock, arn):
            abandon(bedrock, created)
        raise deleted
    return arn


def is_claimed(bedrock: Any, job: Mapping[str, Any], absence_seconds: float) -> bool:
    """Return whether any resource claims the job. Its tags may be readable later than the job itself."""
    return bool(confirmed(lambda: ownership.claims(_tags(bedrock, job)) or None, absence_seconds))


def abandon(bedrock: Any, job: Mapping[str, Any]) -> None:
    """Stop an attempt whose resource was deleted, and remove the claims copied from the first attempt."""
    if copied := sorted(ownership.claims(_tags(bedrock, job))):
        ownership.remove_tags(bedrock, str(job["jobArn"]), copied)
    stop(bedrock, job)


def unclaimed(name: str) -> str:
    """Return in words that no resource claims the job any more."""
    return f"the resource of {name} was deleted from its stack"


def _request_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that created a job, without its names, tags and token."""
    copied = {
        "roleArn": "roleArn",
        "baseModelIdentifier": "baseModelArn",
        "customizationType": "customizationType",
        "trainingDataConfig": "trainingDataConfig",
        "outputDataConfig": "outputDataConfig",
        "customizationConfig": "customizationConfig",
        "vpcConfig": "vpcConfig",
        "customModelKmsKeyId": "outputModelKmsKeyArn",
    }
    if job.get("validationDataConfig", {}).get("validators"):
        copied["validationDataConfig"] = "validationDataConfig"
    if job.get("customizationType") != DISTILLATION:
        # Distillation takes none, although its description may show some.
        copied["hyperParameters"] = "hyperParameters"
    return {name: job[shown] for name, shown in copied.items() if job.get(shown)}


def _create(
    bedrock: Any, request: Mapping[str, Any], is_mine: Callable[[Mapping[str, Any]], bool]
) -> tuple[str, dict[str, Any] | None]:
    """Create the job and return its ARN, and the job itself if it existed before."""
    try:
        created = bedrock.create_model_customization_job(**request)
    except (ClientError, BotoCoreError) as error:
        # Whatever this error says, an earlier try of the same call may have created the job.
        existing = find(bedrock, request["jobName"])
        if existing:
            return _adopt(existing, ours=is_mine(existing)), existing
        raise _refusal(request, error) from error
    return str(created["jobArn"]), None


def _refusal(request: Mapping[str, Any], error: ClientError | BotoCoreError) -> ResourceError:
    text = f"Bedrock did not create job {request['jobName']}: {described(error)}"
    if is_transient(error):
        return NotYetError(f"{text} Retries failed for several minutes. Deploy again later.")
    if not isinstance(error, ClientError):
        return ResourceError(text)
    if is_name_in_use(error):
        return NameInUseError(f"{text} Bedrock does not show the job of this name yet.")
    if roles.is_not_ready(error):
        return roles.RoleNotReadyError(text, request["roleArn"])
    if code(error) == "ServiceQuotaExceededException":
        text += (
            " Stop or wait for another job, delete custom models, or raise the quotas of customization jobs "
            f"and custom models for {request['baseModelIdentifier']} in Service Quotas."
        )
    return ResourceError(text)


def _adopt(job: Mapping[str, Any], *, ours: bool) -> str:
    if ours:
        return str(job["jobArn"])
    raise ResourceError(
        f"A job named {job['jobName']} exists and does not belong to this stack ({job['jobArn']}, "
        f"{job['status']}). Job names can't be reused. Set distillation.nonce, or another owner."
    )


def is_ours(bedrock: Any, spec: JobSpec, job: Mapping[str, Any]) -> bool:
    """Return whether an existing job belongs to the spec, by its token or its tags of owner and digest."""
    return _is_ours(spec, job, _tags(bedrock, job))


def _is_ours(spec: JobSpec, job: Mapping[str, Any], tags: Mapping[str, str]) -> bool:
    ours = _whose(spec.tags)
    return job.get("clientRequestToken") == spec.token or (bool(ours) and _whose(tags) == ours)


def _tags(bedrock: Any, job: Mapping[str, Any]) -> dict[str, str]:
    return ownership.read_tags(bedrock, str(job["jobArn"])) or {}


def _whose(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of owner and digest, or nothing if one of them is missing."""
    known = {key: tags[key] for key in (OWNER_TAG, DIGEST_TAG) if key in tags}
    return known if len(known) == 2 else {}


def stop(bedrock: Any, job: Mapping[str, Any]) -> bool:
    """Stop a job, given its current description. Return whether it has ended; call again until it has.

    AWS charges the tokens already used, and a stopped job leaves no model (Bedrock user guide, stop a job).
    """
    if job["status"] == "InProgress":
        try:
            bedrock.stop_model_customization_job(jobIdentifier=job["jobArn"])
        except ClientError as error:
            # It ended, or was stopped by someone else, since it was read: the next read shows it.
            if code(error) not in {"ConflictException", "ValidationException", "ResourceNotFoundException"}:
                raise
    return job["status"] not in IN_PROGRESS


def attributes(job: Mapping[str, Any]) -> dict[str, str]:
    """Return a job's attributes for CloudFormation, from GetModelCustomizationJob's response.

    All are text, and empty if Bedrock has no value yet. Losses of several validation files are joined by
    commas, in the order of the files.
    """
    losses = [str(metrics["validationLoss"]) for metrics in job.get("validationMetrics") or []]
    return {
        "JobArn": str(job["jobArn"]),
        "JobName": str(job["jobName"]),
        "Status": str(job["status"]),
        "BaseModel": base_model(str(job["baseModelArn"])),
        "ModelArn": str(job.get("outputModelArn") or ""),
        "TrainingLoss": str((job.get("trainingMetrics") or {}).get("trainingLoss", "")),
        "ValidationLoss": ",".join(losses),
    }


def planned_attributes(spec: JobSpec) -> dict[str, str]:
    """Return the same attributes for a job that is created later, once its data exists."""
    return {
        "JobArn": "",
        "JobName": spec.job_name,
        "Status": "NotMadeYet",
        "BaseModel": spec.base_model_identifier,
        "ModelArn": "",
        "TrainingLoss": "",
        "ValidationLoss": "",
    }


def progress(job: Mapping[str, Any]) -> str:
    """Return the three phases in words, e.g. `validation Completed, data processing InProgress`."""
    details = job.get("statusDetails") or {}
    phases = (
        ("validation", "validationDetails"),
        ("data processing", "dataProcessingDetails"),
        ("training", "trainingDetails"),
    )
    known = [f"{name} {details[key]['status']}" for name, key in phases if details.get(key, {}).get("status")]
    return ", ".join(known) or str(job["status"])
