"""Buy, move and delete provisioned throughput: model units by the hour, paid until they are deleted.

Throughput is found by its deterministic name, so a lost response never loses it. The name contains what
Bedrock can't change in place (`naming.throughput_name`). Since it can be renamed, a tag keeps the name that
it was created with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_conflict,
    is_gone,
    is_transient,
    or_none,
)
from distilled_router.bedrock import models
from distilled_router.bedrock.lifecycle import check_usable
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags

IN_SERVICE, CREATING, UPDATING, FAILED = "InService", "Creating", "Updating", "Failed"
CREATED_AS_TAG = "distilled-router:throughput"

_NAME = re.compile(r"(?P<name>.+)-(?P<terms>[1-9][0-9]*mu(-[16]m)?)")


@dataclass(frozen=True)
class ThroughputSpec:
    """The throughput to buy, as CreateProvisionedModelThroughput needs it.

    Attributes:
        name: the name that it should have.
        model_units: how many model units to buy.
        owner: value of the owner's tag.
        token: the client request token. Each attempt to buy has its own: a call that is sent twice buys once,
            and throughput that was deleted can be bought again.
        commitment_duration: `OneMonth` or `SixMonths`; None is billed by the hour.
        tags: tags besides the owner's.
        created_as: the name that it was created with, if that differs from `name`.
    """

    name: str
    model_units: int
    owner: str
    token: str
    commitment_duration: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    created_as: str = ""

    @property
    def first_name(self) -> str:
        """Return the name that it is, or was, created with."""
        return self.created_as or self.name


def terms(name: str) -> str | None:
    """Return model units and commitment from a throughput's name, such as `2mu-1m`.

    These can't be changed in place. None for a name that is not by `naming.throughput_name`.
    """
    match = _NAME.fullmatch(name)
    return match["terms"] if match else None


def is_throughput(endpoint: str) -> bool:
    """Return whether the ARN of a model endpoint is that of provisioned throughput."""
    return ":provisioned-model/" in endpoint


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """Return GetProvisionedModelThroughput's response, or None if it does not exist."""
    return or_none(bedrock.get_provisioned_model_throughput, provisionedModelId=name_or_arn)


def find_created_as(bedrock: Any, first_name: str, owner: str, *names: str) -> dict[str, Any] | None:
    """Return the owner's throughput that was created with a name, or None.

    It is read by this name and by those that it may have since. Raises NotYetError if its tags can't be read.
    """
    possible = list(dict.fromkeys((first_name, *names)))
    # CloudFormation may deliver an event twice, and the other delivery may rename it between two reads.
    for name in (*possible, *possible[:-1]):
        existing = find(bedrock, name)
        if existing and _belongs(existing, read_tags(bedrock, existing), owner, first_name):
            return existing
    return None


def owned(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """Yield the summaries of all throughput that releases of this owner bought, by its name and tag."""
    pages = bedrock.get_paginator("list_provisioned_model_throughputs").paginate(nameContains=f"{owner}-")
    for page in pages:
        for item in page["provisionedModelSummaries"]:
            match = _NAME.fullmatch(item["provisionedModelName"])
            if match and match["name"] == owner and (_tags(bedrock, item) or {}).get(OWNER_TAG) == owner:
                yield item


def read_tags(bedrock: Any, existing: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of throughput.

    Raises NotYetError if they can't be read, since it is being deleted or was bought a moment ago: it must
    not be taken for another owner's.
    """
    tags = _tags(bedrock, existing)
    if tags is None:
        raise NotYetError(f"The tags of {existing['provisionedModelArn']} can't be read.")
    return tags


def _tags(bedrock: Any, existing: Mapping[str, Any]) -> dict[str, str] | None:
    found = or_none(bedrock.list_tags_for_resource, resourceARN=existing["provisionedModelArn"])
    return None if found is None else {tag["key"]: tag["value"] for tag in found.get("tags", [])}


def _belongs(existing: Mapping[str, Any], tags: Mapping[str, str], owner: str, first_name: str) -> bool:
    created_as = tags.get(CREATED_AS_TAG, existing["provisionedModelName"])
    return tags.get(OWNER_TAG) == owner and created_as == first_name


def serves(existing: Mapping[str, Any], name: str, model_arn: str) -> bool:
    """Return whether it serves this model under this name, and is not being moved."""
    found = (existing["status"], existing["provisionedModelName"], existing["modelArn"])
    return found == (IN_SERVICE, name, model_arn) and existing.get("desiredModelArn", model_arn) == model_arn


def is_moving(existing: Mapping[str, Any], model_arn: str) -> bool:
    """Return whether it is being moved to this model.

    The ARNs of model and desired model differ until the update has completed (botocore:
    GetProvisionedModelThroughputResponse$desiredModelArn).
    """
    return bool(existing["modelArn"] != model_arn == existing.get("desiredModelArn"))


def is_requested(existing: Mapping[str, Any], name: str, model_arn: str) -> bool:
    """Return whether an update to this name and this model is in progress."""
    wanted = (existing["provisionedModelName"], existing.get("desiredModelArn")) == (name, model_arn)
    return wanted and (existing["status"] == UPDATING or is_moving(existing, model_arn))


def ensure(
    bedrock: Any, spec: ThroughputSpec, model_arn: str, *, now: datetime, arn: str = "", requested: str = ""
) -> dict[str, Any]:
    """Buy throughput for this model, or move the existing one to it, and return its description.

    Call again until it `serves`.

    Args:
        bedrock: a bedrock client.
        spec: the throughput.
        model_arn: the model to serve.
        now: the time.
        arn: the existing throughput to move, whatever its name; nothing is bought then.
        requested: ARN of the throughput for which the same move was requested before. If it is in service
            with another model or name, the move has failed.

    Raises:
        NotYetError: The call failed temporarily.
        ResourceError: It belongs to another owner, the model can't be served, the move failed, or Bedrock
            refuses the request.
    """
    existing = find(bedrock, arn or spec.name)
    if existing is None:
        if arn:
            raise ResourceError(deleted_outside(spec.name))
        _check_model(bedrock, spec, model_arn, now)
        return _create(bedrock, spec, model_arn)
    _check_owner(bedrock, spec, existing)
    found = (existing["provisionedModelName"], existing["modelArn"])
    if existing["status"] != IN_SERVICE or is_moving(existing, model_arn) or found == (spec.name, model_arn):
        return existing
    if requested == existing["provisionedModelArn"]:
        raise ResourceError(
            f"Throughput {spec.name} did not move to {model_arn}: it still serves {existing['modelArn']} as "
            f"{existing['provisionedModelName']} ({existing.get('failureMessage') or 'no reason given'})."
        )
    _check_model(bedrock, spec, model_arn, now)
    return _move(bedrock, spec, existing, model_arn)


def deleted_outside(name: str) -> str:
    """Return the error text for throughput that was deleted outside of its stack."""
    return (
        f"Throughput {name} was deleted outside of its stack. Nothing was bought in its place, since that "
        "costs money. To buy it again, remove the resource from the stack, deploy, add it again and deploy "
        "again; or declare another number of model units."
    )


def _check_model(bedrock: Any, spec: ThroughputSpec, model_arn: str, now: datetime) -> None:
    """Raise ResourceError for a model that can't be served, before anything is paid for."""
    begin = f"Throughput {spec.name} was neither bought nor moved: model {model_arn}"
    model = models.find(bedrock, model_arn)
    if model is None:
        raise ResourceError(f"{begin} does not exist. Name an existing model.")
    status = model.get("modelStatus", "Active")
    if status != "Active":
        reason = model.get("failureMessage") or "no reason given"
        raise ResourceError(f"{begin} is {status} ({reason}); only an Active model can be served.")
    base = str(model.get("baseModelArn", model_arn))
    if ":custom-model/" in base:
        # The model was trained from a custom model: the ARN names the foundation model before the model's id.
        base = base.partition(":custom-model/")[2].rpartition("/")[0]
    try:
        check_usable(bedrock, [base], allow_legacy=False, today=now)
    except ResourceError as error:
        raise ResourceError(
            f"{begin} has a base model that is not ACTIVE. {error} distillation.allow_legacy does not help "
            "here: Bedrock sells no throughput for a LEGACY model (user guide, model lifecycle). Serve it on "
            "demand until its end, or train another student."
        ) from error


def _create(bedrock: Any, spec: ThroughputSpec, model_arn: str) -> dict[str, Any]:
    tags = {**spec.tags, OWNER_TAG: spec.owner, CREATED_AS_TAG: spec.first_name}
    request: dict[str, Any] = {
        "provisionedModelName": spec.name,
        "modelId": model_arn,
        "modelUnits": spec.model_units,
        "tags": bedrock_tags(tags),
        "clientRequestToken": spec.token,
    }
    if spec.commitment_duration:
        request["commitmentDuration"] = spec.commitment_duration
    try:
        created = bedrock.create_provisioned_model_throughput(**request)
    except (ClientError, BotoCoreError) as error:
        # An earlier try of this call may have bought it; only reading by name shows that.
        existing = find(bedrock, spec.name)
        if existing:
            _check_owner(bedrock, spec, existing)
            return existing
        raise _refusal(spec, error) from error
    # Reading by name may not find it yet.
    return {
        "provisionedModelArn": created["provisionedModelArn"],
        "provisionedModelName": spec.name,
        "modelArn": model_arn,
        "desiredModelArn": model_arn,
        "status": CREATING,
    }


def _move(bedrock: Any, spec: ThroughputSpec, existing: Mapping[str, Any], model_arn: str) -> dict[str, Any]:
    """Update the model, the name, or both with one call."""
    arn = existing["provisionedModelArn"]
    desired: dict[str, str] = {}
    if existing["modelArn"] != model_arn:
        desired["desiredModelId"] = model_arn
    if existing["provisionedModelName"] != spec.name:
        desired["desiredProvisionedModelName"] = spec.name
    try:
        bedrock.update_provisioned_model_throughput(provisionedModelId=arn, **desired)
    except (ClientError, BotoCoreError) as error:
        now = find(bedrock, arn)
        if now and (now["status"] == UPDATING or serves(now, spec.name, model_arn)):
            return now
        raise _refusal(spec, error) from error
    return {
        **existing,
        "provisionedModelName": spec.name,
        "desiredModelArn": model_arn,
        "status": UPDATING,
    }


def _refusal(spec: ThroughputSpec, error: ClientError | BotoCoreError) -> ResourceError:
    text = f"Bedrock refused throughput {spec.name} of {spec.model_units} model units: {described(error)}"
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
    tags = read_tags(bedrock, existing)
    if not _belongs(existing, tags, spec.owner, spec.first_name):
        raise ResourceError(not_owned(spec.name, existing, tags))


def not_owned(name: str, existing: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Return the error text for existing throughput of that name which belongs to another resource."""
    owner, created_as = tags.get(OWNER_TAG, "unknown"), tags.get(CREATED_AS_TAG, name)
    return (
        f"A provisioned throughput named {name} exists and does not belong to this stack: "
        f"{existing['provisionedModelArn']} (owner {owner}, created as {created_as}). Choose another name, "
        "or delete it. ProvisionedThroughput.from_provisioned_model_arn uses throughput of another owner."
    )


def sync_tags(
    bedrock: Any, existing: Mapping[str, Any], wanted: Mapping[str, str], unwanted: Iterable[str] = ()
) -> None:
    """Add the wanted tags and remove the unwanted ones. Makes no call if nothing differs."""
    present = read_tags(bedrock, existing)
    changed = {key: value for key, value in wanted.items() if present.get(key) != value}
    stale = sorted(key for key in unwanted if key in present and key not in wanted)
    if changed:
        bedrock.tag_resource(resourceARN=existing["provisionedModelArn"], tags=bedrock_tags(changed))
    if stale:
        bedrock.untag_resource(resourceARN=existing["provisionedModelArn"], tagKeys=stale)


def committed(existing: Mapping[str, Any], now: datetime, hourly_price: float | None = None) -> str | None:
    """Return the error text for throughput whose commitment has not ended, or None if it can be deleted.

    The text names the end and the cost until then. `hourly_price` is the price of one model unit, in USD.
    """
    term = existing.get("commitmentExpirationTime")
    if not term or now >= term or existing["status"] == FAILED:
        return None
    end = f"{term.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    hours, units = math.ceil((term - now).total_seconds() / 3600), int(existing["modelUnits"])
    price = ""
    if hourly_price:
        price = f", {hours * units * hourly_price:,.0f} USD at {hourly_price:g} USD for a model unit and hour"
    return (
        f"Provisioned throughput {existing['provisionedModelName']} is committed until {end} and can't be "
        "deleted before; AWS bills it until then, and renews it at the end of the term. "
        f"{hours:,} hours of {units} model units are left{price}."
    )


def delete(
    bedrock: Any, name_or_arn: str, owner: str, *, now: datetime, hourly_price: float | None = None
) -> bool:
    """Delete the throughput. Return whether it is gone or another owner's; call again until it is.

    Raises ResourceError before the end of a commitment's term: AWS bills it until then, and refuses.
    """
    existing = find(bedrock, name_or_arn)
    if existing is None:
        return True
    tags = _tags(bedrock, existing)
    if tags is None:
        return False
    if tags.get(OWNER_TAG) != owner:
        return True
    arn = existing["provisionedModelArn"]
    if term := committed(existing, now, hourly_price):
        raise ResourceError(term)
    if existing["status"] == UPDATING:
        return False  # Bedrock deletes nothing that is being updated (user guide, edit throughput)
    try:
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    except ClientError as error:
        if is_gone(error, lambda: find(bedrock, arn)):
            return True
        # AWS does not document whether throughput that is still being created can be deleted. It is tried,
        # since it is billed as soon as it is in service.
        if is_conflict(error) or (existing["status"] == CREATING and code(error) == "ValidationException"):
            return False
        raise
    return find(bedrock, arn) is None
