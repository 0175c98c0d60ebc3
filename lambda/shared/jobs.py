"""Bedrock model customization jobs: paid once, found again by name, stopped before they are forgotten.

A job's name is used up for ever, since no operation deletes a job (botocore: bedrock has none). Our names
end in the digest of all that decides the model, so one name means one specification: a job of that name
which carries our token or tags is the work that was asked for, and is adopted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_role_not_ready,
    is_transient,
    or_none,
)
from shared.lifecycle import check_usable
from shared.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags

IN_PROGRESS = frozenset({"InProgress", "Stopping"})


@dataclass(frozen=True)
class JobSpec:
    """All that CreateModelCustomizationJob needs; the fields carry the request's own names."""

    job_name: str
    custom_model_name: str
    role_arn: str
    base_model_identifier: str
    customization_type: str
    training_data_uri: str
    output_data_uri: str
    teacher_model_identifier: str | None = None
    max_response_length: int | None = None
    hyper_parameters: Mapping[str, str] = field(default_factory=dict)
    kms_key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """The client request token: the same specification under the same name has the same token, so
        that a create call which is sent twice makes one job. Tags, role and key are not part of it: they
        can change without a new model."""
        decisive = [
            self.job_name,
            self.base_model_identifier,
            self.customization_type,
            self.training_data_uri,
            self.teacher_model_identifier,
            self.max_response_length,
            sorted(self.hyper_parameters.items()),
        ]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    def request(self) -> dict[str, Any]:
        """The parameters of CreateModelCustomizationJob. DISTILLATION carries a teacher, no others do."""
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
            if self.max_response_length:
                teacher["maxResponseLengthForInference"] = self.max_response_length
            request["customizationConfig"] = {"distillationConfig": {"teacherModelConfig": teacher}}
        if self.hyper_parameters:
            request["hyperParameters"] = dict(self.hyper_parameters)
        if self.kms_key_id:
            request["customModelKmsKeyId"] = self.kms_key_id
        return request


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """GetModelCustomizationJob's answer, or None where no such job exists."""
    return or_none(bedrock.get_model_customization_job, jobIdentifier=name_or_arn)


def ensure(bedrock: Any, spec: JobSpec, *, allow_legacy: bool, today: datetime | None = None) -> str:
    """Make the job, or adopt the one that exists, and return its ARN. Asks once.

    Raises NotYetError where the same call may succeed soon: a role that can't be assumed yet, throttling, an
    answer that was lost on the way; the token makes the repetition safe. Raises ResourceError where nothing
    was made: a model that ended, a name that somebody else used, a request that is refused.
    """
    existing = find(bedrock, spec.job_name)
    if existing:
        return _adopt(bedrock, spec, existing)
    models = [spec.base_model_identifier]
    if spec.teacher_model_identifier:
        models.append(spec.teacher_model_identifier)
    check_usable(bedrock, models, allow_legacy=allow_legacy, today=today)
    try:
        created = bedrock.create_model_customization_job(**spec.request())
    except (ClientError, BotoCoreError) as error:
        # Whatever this answer says, an earlier try of the same call may have made the job.
        existing = find(bedrock, spec.job_name)
        if existing:
            return _adopt(bedrock, spec, existing)
        raise _refusal(spec, error) from error
    return str(created["jobArn"])


def _refusal(spec: JobSpec, error: ClientError | BotoCoreError) -> ResourceError:
    text = f"Bedrock did not take job {spec.job_name}: {described(error)}"
    if is_transient(error):
        return NotYetError(f"{text} It was asked again for a while. Deploy again later.")
    if not isinstance(error, ClientError):
        return ResourceError(text)
    if is_role_not_ready(error):
        return NotYetError(
            f"{text} The trust policy of {spec.role_arn} must name bedrock.amazonaws.com, this account and "
            "this Region's jobs; a new role can be assumed after about two minutes."
        )
    if code(error) == "ServiceQuotaExceededException":
        text += (
            f" Stop or wait for another job, delete custom models, or raise the quotas of customization jobs "
            f"and custom models for {spec.base_model_identifier} in Service Quotas."
        )
    return ResourceError(text)


def _adopt(bedrock: Any, spec: JobSpec, job: Mapping[str, Any]) -> str:
    arn = str(job["jobArn"])
    if is_ours(bedrock, spec, job):
        return arn
    raise ResourceError(
        f"A job named {spec.job_name} exists and is not this stack's ({arn}, {job['status']}). Job names "
        "can't be reused. Set distillation.nonce, or another name, in the environment's settings."
    )


def is_ours(bedrock: Any, spec: JobSpec, job: Mapping[str, Any]) -> bool:
    """Whether a job of the spec's name is the spec's: it has its token, or its owner's and digest's tags."""
    if job.get("clientRequestToken") == spec.token:
        return True
    found = bedrock.list_tags_for_resource(resourceARN=job["jobArn"]).get("tags", [])
    ours = bedrock_tags({key: spec.tags[key] for key in (OWNER_TAG, DIGEST_TAG) if key in spec.tags})
    return len(ours) == 2 and all(tag in found for tag in ours)


def stop(bedrock: Any, name: str) -> bool:
    """Stop the job if it runs; True once it is in a final state. Call again until then.

    Tokens already used are charged, and a stopped job leaves no model (Bedrock user guide, stop a job).
    """
    job = find(bedrock, name)
    if job is None or job["status"] not in IN_PROGRESS:
        return True
    if job["status"] == "InProgress":
        try:
            bedrock.stop_model_customization_job(jobIdentifier=job["jobArn"])
        except ClientError as error:
            # It ended, or somebody else stopped it, between our look and our call: the next look tells.
            if code(error) not in {"ConflictException", "ValidationException", "ResourceNotFoundException"}:
                raise
    return False


def progress(job: Mapping[str, Any]) -> str:
    """The three phases in words, e.g. `validation Completed, data processing InProgress, training …`."""
    details = job.get("statusDetails") or {}
    phases = (
        ("validation", "validationDetails"),
        ("data processing", "dataProcessingDetails"),
        ("training", "trainingDetails"),
    )
    known = [f"{name} {details[key]['status']}" for name, key in phases if details.get(key, {}).get("status")]
    return ", ".join(known) or str(job["status"])
