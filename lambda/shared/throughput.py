"""Provisioned throughput: model units by the hour, paid until it is deleted.

It is found by its deterministic name, so that whoever creates it can't lose it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from shared.errors import ResourceError, code, is_conflict, is_missing, message, or_none
from shared.naming import bedrock_tags, is_owned

IN_SERVICE, FAILED = "InService", "Failed"


@dataclass(frozen=True)
class ThroughputSpec:
    """What CreateProvisionedModelThroughput needs. No commitment means billing by the hour."""

    name: str
    model_units: int
    owner: str
    commitment_duration: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """GetProvisionedModelThroughput's answer, or None where it does not exist."""
    return or_none(bedrock.get_provisioned_model_throughput, provisionedModelId=name_or_arn)


def ensure(bedrock: Any, spec: ThroughputSpec, model_arn: str) -> dict[str, Any]:
    """Buy the throughput for this model, or point the one that is there at it, and return it as it is.

    Call again until its status is InService and its model is this one. Raises ResourceError where the
    name is somebody else's, or the quota refuses.
    """
    existing = find(bedrock, spec.name)
    if existing is None:
        return _create(bedrock, spec, model_arn)
    _check_owner(bedrock, spec, existing)
    settled = existing["status"] == IN_SERVICE
    if settled and existing["modelArn"] != model_arn:
        bedrock.update_provisioned_model_throughput(
            provisionedModelId=existing["provisionedModelArn"], desiredModelId=model_arn
        )
        return dict(bedrock.get_provisioned_model_throughput(provisionedModelId=spec.name))
    return existing


def _create(bedrock: Any, spec: ThroughputSpec, model_arn: str) -> dict[str, Any]:
    request: dict[str, Any] = {
        "provisionedModelName": spec.name,
        "modelId": model_arn,
        "modelUnits": spec.model_units,
        "tags": bedrock_tags(spec.tags),
    }
    if spec.commitment_duration:
        request["commitmentDuration"] = spec.commitment_duration
    try:
        bedrock.create_provisioned_model_throughput(**request)
    except ClientError as error:
        existing = find(bedrock, spec.name)
        if existing:
            _check_owner(bedrock, spec, existing)
            return existing
        raise ResourceError(_refusal(spec, error)) from error
    return dict(bedrock.get_provisioned_model_throughput(provisionedModelId=spec.name))


def _refusal(spec: ThroughputSpec, error: ClientError) -> str:
    text = f"Bedrock refused throughput {spec.name} of {spec.model_units} model units: {code(error)}: "
    text += message(error)
    if code(error) == "ServiceQuotaExceededException":
        text += (
            " Both quotas are 0 by default: 'Model units no-commitment Provisioned Throughputs across custom "
            "models' (L-BE77399C) and 'Model units per provisioned model' of the base model. Ask for an "
            'increase in Service Quotas, or set endpoint.kind = "on_demand".'
        )
    return text


def _check_owner(bedrock: Any, spec: ThroughputSpec, existing: Mapping[str, Any]) -> None:
    arn = existing["provisionedModelArn"]
    if not is_owned(bedrock.list_tags_for_resource(resourceARN=arn).get("tags", []), spec.owner):
        raise ResourceError(
            f"A provisioned throughput named {spec.name} exists and is not this stack's: {arn}. "
            "Choose another name in the environment's settings."
        )


def delete(bedrock: Any, name: str, owner: str, *, now: datetime) -> bool:
    """Ask for the throughput's end; True once it is gone. Call again until then.

    Raises ResourceError before the end of a commitment's term: AWS bills it until then and refuses.
    """
    existing = find(bedrock, name)
    if existing is None:
        return True
    arn = existing["provisionedModelArn"]
    if not is_owned(bedrock.list_tags_for_resource(resourceARN=arn).get("tags", []), owner):
        return True
    term = existing.get("commitmentExpirationTime")
    if term and now < term:
        raise ResourceError(
            f"Provisioned throughput {name} is committed until {term:%Y-%m-%d %H:%M} UTC and can't be deleted "
            "before; AWS bills it until then, and renews it at the end of the term. Delete the stack after that "
            "date, or retain this resource."
        )
    if existing["status"] in {"Creating", "Updating"}:
        return False
    try:
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    except ClientError as error:
        if is_missing(error):
            return True
        if is_conflict(error):
            return False
        raise
    return find(bedrock, name) is None
