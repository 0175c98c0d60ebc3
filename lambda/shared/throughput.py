"""Provisioned throughput: model units by the hour, paid until it is deleted.

It is found by its deterministic name, so that whoever creates it can't lose it.
"""

from __future__ import annotations

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
    is_conflict,
    is_missing,
    is_transient,
    or_none,
)
from shared.naming import bedrock_tags, is_owned

IN_SERVICE, CREATING, UPDATING, FAILED = "InService", "Creating", "Updating", "Failed"


@dataclass(frozen=True)
class ThroughputSpec:
    """What CreateProvisionedModelThroughput needs. No commitment means billing by the hour.

    `token` differs between attempts to buy, and only between them: a call that is sent twice buys once, and
    what was deleted since can be bought anew.
    """

    name: str
    model_units: int
    owner: str
    token: str
    commitment_duration: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """GetProvisionedModelThroughput's answer, or None where it does not exist."""
    return or_none(bedrock.get_provisioned_model_throughput, provisionedModelId=name_or_arn)


def find_owned(bedrock: Any, name: str, owner: str) -> dict[str, Any] | None:
    """The throughput of that name where it carries the owner's tag; None otherwise."""
    existing = find(bedrock, name)
    return existing if existing and _is_owned(bedrock, existing, owner) else None


def _is_owned(bedrock: Any, existing: Mapping[str, Any], owner: str) -> bool:
    tags = bedrock.list_tags_for_resource(resourceARN=existing["provisionedModelArn"]).get("tags", [])
    return is_owned(tags, owner)


def ensure(bedrock: Any, spec: ThroughputSpec, model_arn: str, *, asked: str = "") -> dict[str, Any]:
    """Buy the throughput for this model, or point the one that is there at it, and return it as it is.

    Call again until its status is InService and its model is this one. `asked` is the ARN of the throughput
    that was asked to move to this model before: where it is in service with another one, that failed.
    Raises NotYetError where the same call may succeed soon, ResourceError where the name is somebody else's,
    the move failed, or Bedrock refuses.
    """
    existing = find(bedrock, spec.name)
    if existing is None:
        return _create(bedrock, spec, model_arn)
    _check_owner(bedrock, spec, existing)
    if existing["status"] != IN_SERVICE or existing["modelArn"] == model_arn:
        return existing
    if asked == existing["provisionedModelArn"]:
        raise ResourceError(
            f"Throughput {spec.name} did not move to {model_arn}: it still serves {existing['modelArn']} "
            f"({existing.get('failureMessage') or 'no reason given'})."
        )
    return _move(bedrock, spec, existing, model_arn)


def _create(bedrock: Any, spec: ThroughputSpec, model_arn: str) -> dict[str, Any]:
    request: dict[str, Any] = {
        "provisionedModelName": spec.name,
        "modelId": model_arn,
        "modelUnits": spec.model_units,
        "tags": bedrock_tags(spec.tags),
        "clientRequestToken": spec.token,
    }
    if spec.commitment_duration:
        request["commitmentDuration"] = spec.commitment_duration
    try:
        made = bedrock.create_provisioned_model_throughput(**request)
    except (ClientError, BotoCoreError) as error:
        # An earlier try of this call may have bought it: only a look by name tells.
        existing = find(bedrock, spec.name)
        if existing:
            _check_owner(bedrock, spec, existing)
            return existing
        raise _refusal(spec, error) from error
    # A look by name might not see it yet.
    return {
        "provisionedModelArn": made["provisionedModelArn"],
        "provisionedModelName": spec.name,
        "modelArn": model_arn,
        "desiredModelArn": model_arn,
        "status": CREATING,
    }


def _move(bedrock: Any, spec: ThroughputSpec, existing: Mapping[str, Any], model_arn: str) -> dict[str, Any]:
    arn = existing["provisionedModelArn"]
    try:
        bedrock.update_provisioned_model_throughput(provisionedModelId=arn, desiredModelId=model_arn)
    except (ClientError, BotoCoreError) as error:
        now = find(bedrock, arn)
        if now and now["status"] == UPDATING:
            return now
        raise _refusal(spec, error) from error
    return {**existing, "desiredModelArn": model_arn, "status": UPDATING}


def _refusal(spec: ThroughputSpec, error: ClientError | BotoCoreError) -> ResourceError:
    text = (
        f"Bedrock did not take throughput {spec.name} of {spec.model_units} model units: {described(error)}"
    )
    if is_transient(error):
        return NotYetError(text)
    if isinstance(error, ClientError) and code(error) == "ServiceQuotaExceededException":
        text += (
            " Both quotas are 0 by default: 'Model units no-commitment Provisioned Throughputs across custom "
            "models' (L-BE77399C) and 'Model units per provisioned model' of the base model. Ask for an "
            'increase in Service Quotas, or set endpoint.kind = "on_demand".'
        )
    return ResourceError(text)


def _check_owner(bedrock: Any, spec: ThroughputSpec, existing: Mapping[str, Any]) -> None:
    arn = existing["provisionedModelArn"]
    if not _is_owned(bedrock, existing, spec.owner):
        raise ResourceError(
            f"A provisioned throughput named {spec.name} exists and is not this stack's: {arn}. "
            "Choose another name in the environment's settings."
        )


def delete(bedrock: Any, name: str, owner: str, *, now: datetime) -> bool:
    """Ask for the throughput's end; True once it is gone, or is not this owner's. Call again until then.

    Raises ResourceError before the end of a commitment's term: AWS bills it until then and refuses.
    """
    existing = find_owned(bedrock, name, owner)
    if existing is None:
        return True
    arn = existing["provisionedModelArn"]
    term = existing.get("commitmentExpirationTime")
    if term and now < term and existing["status"] != FAILED:
        raise ResourceError(
            f"Provisioned throughput {name} is committed until {term:%Y-%m-%d %H:%M} UTC and can't be "
            "deleted before; AWS bills it until then, and renews it at the end of the term. Delete the stack "
            "after that date, or retain this resource."
        )
    if existing["status"] == UPDATING:
        return False  # Bedrock deletes nothing that is being updated (user guide, edit throughput)
    try:
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    except ClientError as error:
        if is_missing(error):
            return True
        # Whether one that is still being created can be deleted is not documented: it is tried, since it may
        # be billed from the moment that it is in service.
        if is_conflict(error) or (existing["status"] == CREATING and code(error) == "ValidationException"):
            return False
        raise
    return find(bedrock, name) is None
