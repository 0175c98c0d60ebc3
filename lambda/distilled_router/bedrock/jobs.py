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
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_name_in_use,
    is_role_not_ready,
    is_transient,
    or_none,
)
from distilled_router.bedrock import ownership
from distilled_router.bedrock.lifecycle import check_usable
from distilled_router.bedrock.models import base_model
from distilled_router.bedrock.naming import (
    DIGEST_TAG,
    MOST_ATTEMPTS,
    OWNER_TAG,
    attempt_name,
    bedrock_tags,
    first_name,
)
from distilled_router.bedrock.ownership import Claimant

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
        "tags",
    }
)


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The specification of a job, as CreateModelCustomizationJob needs it.

    The fields in CamelCase are the custom resource's properties. Either `training_data_uri` or
    `invocation_logs_uri` is set.
    """

    job_name: str
    custom_model_name: str
    role_arn: str
    base_model_identifier: str
    customization_type: str
    output_data_uri: str
    training_data_uri: str | None = None
    invocation_logs_uri: str | None = None
    use_prompt_response: bool = False
    request_metadata: Mapping[str, str] = field(default_factory=dict)
    validation_data_uris: Sequence[str] = ()
    teacher_model_identifier: str | None = None
    max_response_length_for_inference: int | None = None
    hyper_parameters: Mapping[str, str] = field(default_factory=dict)
    subnet_ids: Sequence[str] = ()
    security_group_ids: Sequence[str] = ()
    custom_model_kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def decisive(self) -> dict[str, Any]:
        """Return the properties that decide the model, which the job's name stands for.

        A file in the job's output bucket is compared by its key: another bucket means the same job.
        """
        bucket = f"s3://{self.output_data_uri.removeprefix('s3://').partition('/')[0]}/"
        values = {known.name: getattr(self, known.name) for known in fields(self) if known.name not in _FREE}
        return {_camel_case(name): _plain(value, bucket) for name, value in values.items()}

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
            "trainingDataConfig": self._training(),
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

    def _training(self) -> dict[str, Any]:
        if self.invocation_logs_uri is None:
            return {"s3Uri": self.training_data_uri}
        logs: dict[str, Any] = {
            "usePromptResponse": self.use_prompt_response,
            "invocationLogSource": {"s3Uri": self.invocation_logs_uri},
        }
        # A map holds exactly one pair (botocore: RequestMetadataMap); several are a list of such maps.
        filters = [{"equals": {key: value}} for key, value in sorted(self.request_metadata.items())]
        if filters:
            logs["requestMetadataFilters"] = filters[0] if len(filters) == 1 else {"andAll": filters}
        return {"invocationLogsConfig": logs}


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


def adopt(bedrock: Any, spec: JobSpec, claimant: Claimant) -> str | None:
    """Claim the job of that name with all its attempts and models, and return its ARN; None if there is none.

    Raises ResourceError if the name belongs to another owner.
    """
    existing = find(bedrock, spec.job_name)
    if existing is None:
        return None
    arn = _checked(existing, ours=is_ours(bedrock, spec, existing))
    for job in attempts(bedrock, spec.job_name):
        for paid in filter(None, (job["jobArn"], job.get("outputModelArn"))):
            ownership.claim(bedrock, paid, claimant)
    return arn


def create(bedrock: Any, spec: JobSpec) -> str:
    """Create the job and return its ARN. Does not retry.

    The caller looks for an existing job and checks the models before. A job that an earlier try of the same
    call created is returned.

    Raises:
        NotYetError: The call failed temporarily: the role can't be assumed yet, Bedrock throttles, or the
            response was lost. The token makes repeating it safe.
        ResourceError: Nothing was created: the name belongs to another owner, or Bedrock refuses the request.
    """
    return _create(bedrock, spec.request(), lambda job: is_ours(bedrock, spec, job))


def check_models(bedrock: Any, spec: JobSpec, *, allow_legacy: bool, today: datetime | None = None) -> None:
    """Raise ResourceError if a model of the job has ended or is LEGACY."""
    asked = [spec.base_model_identifier]
    if spec.teacher_model_identifier:
        asked.append(spec.teacher_model_identifier)
    check_usable(bedrock, asked, allow_legacy=allow_legacy, today=today)


def failed_internally(job: Mapping[str, Any]) -> bool:
    """Return whether the job failed because of an error inside Bedrock.

    The message is "Encountered an internal error when processing the request." Such jobs succeeded later with
    the same data, and the failed ones were not charged.
    """
    return job["status"] == "Failed" and "internal error" in (job.get("failureMessage") or "").lower()


def retry(bedrock: Any, job: Mapping[str, Any], attempt: int) -> str:
    """Create a failed job again, as attempt number `attempt`, and return the new job's ARN.

    Everything except the names is taken from `job`, GetModelCustomizationJob's response. Calling it twice for
    the same attempt creates one job. Raises NotYetError and ResourceError as `create` does; the latter also
    if nobody claims the first attempt any more: its resource was deleted.
    """
    first = first_name(str(job["jobName"]))
    name = attempt_name(first, attempt)
    first_job = job if job["jobName"] == first else find(bedrock, first)
    tags = _tags(bedrock, first_job) if first_job else {}
    if not _whose(tags):
        raise ResourceError(f"Job {name} was not created: {first} lacks the tag {OWNER_TAG}.")
    if not first_job or not ownership.claims(tags):
        raise ResourceError(f"Job {name} was not created: {unclaimed(first)}")
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
        return _whose(_tags(bedrock, found)) == _whose(tags)

    existing = find(bedrock, name)
    if existing:
        return _checked(existing, ours=is_mine(existing))
    arn = _create(bedrock, request, is_mine)
    if not ownership.claims(_tags(bedrock, first_job)):
        # The resource was deleted during the call, and its Delete may have looked for attempts before it.
        if made := find(bedrock, arn):
            stop(bedrock, made)
        raise ResourceError(f"Job {name} was stopped: {unclaimed(first)}")
    return arn


def unclaimed(name: str) -> str:
    """Return the error text for a job that no resource of any stack claims any more."""
    return f"the resource of {name} was deleted from its stack."


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


def _create(bedrock: Any, request: Mapping[str, Any], is_mine: Callable[[Mapping[str, Any]], bool]) -> str:
    try:
        created = bedrock.create_model_customization_job(**request)
    except (ClientError, BotoCoreError) as error:
        # Whatever this error says, an earlier try of the same call may have created the job.
        existing = find(bedrock, request["jobName"])
        if existing:
            return _checked(existing, ours=is_mine(existing))
        raise _refusal(request, error) from error
    return str(created["jobArn"])


def _refusal(request: Mapping[str, Any], error: ClientError | BotoCoreError) -> ResourceError:
    text = f"Bedrock did not create job {request['jobName']}: {described(error)}"
    if is_transient(error):
        return NotYetError(f"{text} Retries failed for several minutes. Deploy again later.")
    if not isinstance(error, ClientError):
        return ResourceError(text)
    if is_role_not_ready(error):
        return NotYetError(
            f"{text} The trust policy of {request['roleArn']} must name bedrock.amazonaws.com, this account "
            "and this Region's jobs; its policy must allow reading the data and writing the output. A new "
            "role can be used after about two minutes."
        )
    if is_name_in_use(error):
        # Bedrock knows the job, but does not show it yet: whose it is can't be told before.
        return NotYetError(f"{text} Bedrock does not show that job yet. Deploy again later.")
    if code(error) == "ServiceQuotaExceededException":
        text += (
            " Stop or wait for another job, delete custom models, or raise the quotas of customization jobs "
            f"and custom models for {request['baseModelIdentifier']} in Service Quotas."
        )
    return ResourceError(text)


def _checked(job: Mapping[str, Any], *, ours: bool) -> str:
    if ours:
        return str(job["jobArn"])
    raise ResourceError(
        f"A job named {job['jobName']} exists and does not belong to this stack ({job['jobArn']}, "
        f"{job['status']}). Job names can't be reused. Set distillation.nonce, or another owner."
    )


def is_ours(bedrock: Any, spec: JobSpec, job: Mapping[str, Any]) -> bool:
    """Return whether an existing job belongs to the spec, by its token or its tags of owner and digest."""
    if job.get("clientRequestToken") == spec.token:
        return True
    ours = _whose(spec.tags)
    return bool(ours) and _whose(_tags(bedrock, job)) == ours


def _tags(bedrock: Any, job: Mapping[str, Any]) -> dict[str, str]:
    answer = bedrock.list_tags_for_resource(resourceARN=job["jobArn"])
    return {tag["key"]: tag["value"] for tag in answer.get("tags", [])}


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
