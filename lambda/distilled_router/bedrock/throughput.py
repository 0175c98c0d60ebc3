"""Find and delete provisioned throughput: model units by the hour, paid until they are deleted.

Throughput belongs to the one logical resource that claims it (`bedrock.ownership`). Its claim stays until the
throughput is gone, so that no interrupted deletion loses it; only throughput that is kept on purpose loses
its claim, and the next resource of this owner that needs its name takes it over.

The name contains what Bedrock can't change in place (`naming.throughput_name`), and is the first guess of
every search. Since throughput can be renamed, also in the console, a tag keeps the name that it was created
with, and all throughput is searched for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    is_conflict,
    is_gone,
    or_none,
)
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags
from distilled_router.bedrock.ownership import Claimant

IN_SERVICE, CREATING, UPDATING, FAILED = "InService", "Creating", "Updating", "Failed"
CREATED_AS_TAG = "distilled-router:throughput"

_NAME = re.compile(r"(?P<name>.+)-(?P<terms>[1-9][0-9]*mu(-[16]m)?)")

logger = Logger(child=True)


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


def listed(bedrock: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the summaries of all throughput of the account."""
    for page in bedrock.get_paginator("list_provisioned_model_throughputs").paginate():
        yield from page["provisionedModelSummaries"]


def claimed(bedrock: Any, claimant: Claimant) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
    """Yield summary and tags of all throughput that a logical resource claims, whatever its name."""
    for item in listed(bedrock):
        tags = ownership.read_tags(bedrock, item["provisionedModelArn"])
        if tags is not None and claimant.holds(tags):
            yield item, tags


def find_own(bedrock: Any, claimant: Claimant, first_name: str, *names: str) -> dict[str, Any] | None:
    """Return the throughput that a logical resource bought under a name, or None.

    It is read by this name, by those that it may have since, and then searched among all: a person may have
    renamed it. Raises NotYetError if its tags can't be read.
    """
    for name in dict.fromkeys((first_name, *names)):
        existing = find(bedrock, name)
        if existing and is_own(existing, read_tags(bedrock, existing), claimant, first_name):
            return existing
    for item, tags in claimed(bedrock, claimant):
        if is_own(item, tags, claimant, first_name):
            return find(bedrock, item["provisionedModelArn"])
    return None


def read_tags(bedrock: Any, existing: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of throughput.

    Raises NotYetError if they can't be read, since it is being deleted or was bought a moment ago: it must
    not be taken for another resource's.
    """
    tags = ownership.read_tags(bedrock, existing["provisionedModelArn"])
    if tags is None:
        raise NotYetError(f"The tags of {existing['provisionedModelArn']} can't be read.")
    return tags


def created_as(existing: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Return the name that throughput was created with."""
    return tags.get(CREATED_AS_TAG, str(existing["provisionedModelName"]))


def is_own(existing: Mapping[str, Any], tags: Mapping[str, str], claimant: Claimant, first_name: str) -> bool:
    """Return whether a logical resource bought throughput with these tags under a name."""
    return claimant.holds(tags) and created_as(existing, tags) == first_name


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


def committed_besides(
    bedrock: Any, claimant: Claimant, wanted: str, now: datetime, hourly_price: float | None = None
) -> list[str]:
    """Return the texts of all committed throughput of a resource, except what was created as `wanted`."""
    besides = [item for item, tags in claimed(bedrock, claimant) if created_as(item, tags) != wanted]
    return [term for item in besides if (term := committed(item, now, hourly_price))]


def leave(bedrock: Any, existing: Mapping[str, Any], claimant: Claimant, now: datetime) -> None:
    """Remove the claim on throughput that is kept on purpose, and log until when it is committed."""
    arn, until = existing["provisionedModelArn"], committed(existing, now)
    text = "throughput kept: Retain is set; it is billed until you delete it"
    logger.warning(text, arn=arn, commitment=until or "none")
    ownership.release(bedrock, arn, claimant)


def delete(
    bedrock: Any, name_or_arn: str, owner: str, *, now: datetime, hourly_price: float | None = None
) -> bool:
    """Delete the throughput. Return whether it is gone; call again until it is.

    Raises ResourceError before the end of a commitment's term: AWS bills it until then, and refuses. Also if
    a person removed the owner's tag, without which no role may delete it.
    """
    existing = find(bedrock, name_or_arn)
    if existing is None:
        return True
    tags = ownership.read_tags(bedrock, existing["provisionedModelArn"])
    if tags is None:
        return False
    arn = existing["provisionedModelArn"]
    if tags.get(OWNER_TAG) != owner:
        raise ResourceError(
            f"Provisioned throughput {existing['provisionedModelName']} was not deleted and is billed: {arn} "
            f"lacks the tag {OWNER_TAG} = {owner}. Add the tag, or delete it yourself, and repeat."
        )
    if term := committed(existing, now, hourly_price):
        raise ResourceError(term)
    if existing["status"] == UPDATING:
        return False  # Bedrock deletes nothing that is being updated (user guide, edit throughput)
    try:
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    except ClientError as error:
        # AWS does not document whether throughput that is still being created can be deleted. It is tried,
        # since it is billed as soon as it is in service.
        if is_conflict(error) or (existing["status"] == CREATING and code(error) == "ValidationException"):
            return False
        if not is_gone(error, lambda: find(bedrock, arn)):
            raise
    return find(bedrock, arn) is None
