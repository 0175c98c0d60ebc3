"""Provisioned throughput: model units by the hour, paid until it is deleted.

It is found by its deterministic name, so that whoever creates it can't lose it. The name says what Bedrock
can't change in place (`naming.throughput_name`); a tag keeps the name under which it was made, since it can
be given another one.
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
    """What CreateProvisionedModelThroughput needs. No commitment means billing by the hour.

    `token` differs between attempts to buy, and only between them: a call that is sent twice buys once, and
    what was deleted since can be bought anew. `created_as` is the name that it was made under, where that is
    another one.
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
        """The name under which it is made, or was."""
        return self.created_as or self.name


def terms(name: str) -> str | None:
    """What a throughput's name says that can't be changed in place, such as `2mu-1m`: its model units and its
    commitment. None for a name that `naming.throughput_name` did not make."""
    match = _NAME.fullmatch(name)
    return match["terms"] if match else None


def is_throughput(endpoint: str) -> bool:
    """Whether the ARN of what a model is invoked by is a throughput's."""
    return ":provisioned-model/" in endpoint


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """GetProvisionedModelThroughput's answer, or None where it does not exist."""
    return or_none(bedrock.get_provisioned_model_throughput, provisionedModelId=name_or_arn)


def find_created_as(bedrock: Any, first_name: str, owner: str, *names: str) -> dict[str, Any] | None:
    """The owner's throughput that was made under a name, looked for under this one and those it may have got
    since. Raises NotYetError where its tags can't be seen."""
    looks = list(dict.fromkeys((first_name, *names)))
    # The same event delivered twice: the other one may rename it between two looks.
    for name in (*looks, *looks[:-1]):
        existing = find(bedrock, name)
        if existing and _belongs(existing, read_tags(bedrock, existing), owner, first_name):
            return existing
    return None


def owned(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """Summaries of all throughput that releases of this owner bought: it carries the owner's name and tag."""
    pages = bedrock.get_paginator("list_provisioned_model_throughputs").paginate(nameContains=f"{owner}-")
    for page in pages:
        for item in page["provisionedModelSummaries"]:
            match = _NAME.fullmatch(item["provisionedModelName"])
            if match and match["name"] == owner and (_tags(bedrock, item) or {}).get(OWNER_TAG) == owner:
                yield item


def read_tags(bedrock: Any, existing: Mapping[str, Any]) -> dict[str, str]:
    """Its tags. Raises NotYetError where they can't be seen: it goes, or was bought a moment ago, and must
    not pass for somebody else's."""
    tags = _tags(bedrock, existing)
    if tags is None:
        raise NotYetError(f"The tags of {existing['provisionedModelArn']} can't be seen.")
    return tags


def _tags(bedrock: Any, existing: Mapping[str, Any]) -> dict[str, str] | None:
    found = or_none(bedrock.list_tags_for_resource, resourceARN=existing["provisionedModelArn"])
    return None if found is None else {tag["key"]: tag["value"] for tag in found.get("tags", [])}


def _belongs(existing: Mapping[str, Any], tags: Mapping[str, str], owner: str, first_name: str) -> bool:
    created_as = tags.get(CREATED_AS_TAG, existing["provisionedModelName"])
    return tags.get(OWNER_TAG) == owner and created_as == first_name


def serves(existing: Mapping[str, Any], name: str, model_arn: str) -> bool:
    """Whether it serves this model under this name, and is on its way to no other one."""
    found = (existing["status"], existing["provisionedModelName"], existing["modelArn"])
    return found == (IN_SERVICE, name, model_arn) and existing.get("desiredModelArn", model_arn) == model_arn


def is_moving(existing: Mapping[str, Any], model_arn: str) -> bool:
    """Whether it is on its way to this model: the two ARNs differ until an update has completed (botocore:
    GetProvisionedModelThroughputResponse$desiredModelArn)."""
    return bool(existing["modelArn"] != model_arn == existing.get("desiredModelArn"))


def is_requested(existing: Mapping[str, Any], name: str, model_arn: str) -> bool:
    """Whether it was asked for this name and this model, and is on its way."""
    wanted = (existing["provisionedModelName"], existing.get("desiredModelArn")) == (name, model_arn)
    return wanted and (existing["status"] == UPDATING or is_moving(existing, model_arn))


def ensure(
    bedrock: Any, spec: ThroughputSpec, model_arn: str, *, now: datetime, arn: str = "", asked: str = ""
) -> dict[str, Any]:
    """Buy the throughput for this model, or give the one that is there its model and its name, and return it
    as it is.

    Call again until it `serves`. With `arn` it is that one, whatever its name, and nothing is bought. `asked`
    is the ARN of the throughput that was asked for the same before: where that is in service with something
    else, it failed. Raises NotYetError where the same call may succeed soon, ResourceError where it is
    somebody else's, the model can't be served, the move failed, or Bedrock refuses.
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
    if asked == existing["provisionedModelArn"]:
        raise ResourceError(
            f"Throughput {spec.name} did not move to {model_arn}: it still serves {existing['modelArn']} as "
            f"{existing['provisionedModelName']} ({existing.get('failureMessage') or 'no reason given'})."
        )
    _check_model(bedrock, spec, model_arn, now)
    return _move(bedrock, spec, existing, model_arn)


def deleted_outside(name: str) -> str:
    """What is said of throughput that somebody deleted while its resource was there."""
    return (
        f"Throughput {name} is gone: somebody deleted it. Nothing was bought in its place, which would be "
        "paid for. To buy it again, take the resource out of the stack, deploy, put it back and deploy "
        "again; or declare another number of model units."
    )


def _check_model(bedrock: Any, spec: ThroughputSpec, model_arn: str, now: datetime) -> None:
    """Refuse, before anything is paid for, a model that can't be served."""
    begin = f"Throughput {spec.name} was neither bought nor moved: model {model_arn}"
    model = models.find(bedrock, model_arn)
    if model is None:
        raise ResourceError(f"{begin} does not exist. Name one that does.")
    status = model.get("modelStatus", "Active")
    if status != "Active":
        reason = model.get("failureMessage") or "no reason given"
        raise ResourceError(f"{begin} is {status} ({reason}), and only one that is Active can be served.")
    base = str(model.get("baseModelArn", model_arn))
    if ":custom-model/" in base:
        # A model made from a custom one: the foundation model stands in the ARN, before the model's own id.
        base = base.partition(":custom-model/")[2].rpartition("/")[0]
    try:
        check_usable(bedrock, [base], allow_legacy=False, today=now)
    except ResourceError as error:
        raise ResourceError(
            f"{begin} is made from one that is not ACTIVE. {error} No setting helps here: Bedrock sells no "
            "throughput for a LEGACY model (user guide, model lifecycle). Serve it on demand while it lasts, "
            "or make a model from another student."
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
    """Give it another model, another name, or both by one call."""
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
    tags = read_tags(bedrock, existing)
    if not _belongs(existing, tags, spec.owner, spec.first_name):
        raise ResourceError(not_owned(spec.name, existing, tags))


def not_owned(name: str, existing: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """What is said of throughput that has the name that is wanted, and is another resource's."""
    owner, created_as = tags.get(OWNER_TAG, "nobody's we know"), tags.get(CREATED_AS_TAG, name)
    return (
        f"A provisioned throughput named {name} exists and is not this stack's: "
        f"{existing['provisionedModelArn']} (owner {owner}, made as {created_as}). Choose another name, or "
        "delete it; ProvisionedThroughput.from_provisioned_model_arn uses one that is not the stack's own."
    )


def sync_tags(
    bedrock: Any, existing: Mapping[str, Any], wanted: Mapping[str, str], unwanted: Iterable[str] = ()
) -> None:
    """Give it tags, and take some off it; no call where nothing differs."""
    present = read_tags(bedrock, existing)
    changed = {key: value for key, value in wanted.items() if present.get(key) != value}
    stale = sorted(key for key in unwanted if key in present and key not in wanted)
    if changed:
        bedrock.tag_resource(resourceARN=existing["provisionedModelArn"], tags=bedrock_tags(changed))
    if stale:
        bedrock.untag_resource(resourceARN=existing["provisionedModelArn"], tagKeys=stale)


def committed(existing: Mapping[str, Any], now: datetime, hourly_price: float | None = None) -> str | None:
    """Until when AWS bills it whatever happens, and how much that still is; None where its end is free.

    `hourly_price` is in USD, for one model unit.
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
    """Ask for the throughput's end; True once it is gone, or is not this owner's. Call again until then.

    Raises ResourceError before the end of a commitment's term: AWS bills it until then and refuses.
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
        # Whether one that is still being created can be deleted is not documented: it is tried, since it may
        # be billed from the moment that it is in service.
        if is_conflict(error) or (existing["status"] == CREATING and code(error) == "ValidationException"):
            return False
        raise
    return find(bedrock, arn) is None
