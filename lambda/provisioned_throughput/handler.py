"""Custom resource ProvisionedThroughput, and the release's step ServeFromThroughput.

If the properties have a model's ARN, the deployment buys the throughput: onEvent of Create only returns the
name, and isComplete buys it, so that CloudFormation always knows what to delete. Without a model the stack
reserves the name, and a release buys the throughput for a model that is already live.

The physical id is the name at creation; renaming the throughput does not change it. It contains the model
units and the commitment. Bedrock can't change these, so other values are a replacement, and CloudFormation
deletes the old throughput after the update has succeeded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.clients import client, table
from distilled_router.aws.custom_resource import (
    Event,
    answer,
    answer_event,
    answer_poll,
    complete,
    is_true,
    pending,
)
from distilled_router.aws.errors import NotYetError, ResourceError, is_transient
from distilled_router.aws.state_machine import StageResult, wait_if_transient, waiting
from distilled_router.bedrock import models, throughput
from distilled_router.bedrock.naming import OWNER_TAG, digest_of
from distilled_router.env import ProvisionedThroughputEnv, ResourceEnv, ServeFromThroughputEnv
from distilled_router.release.table import Releases, RouteChangedError
from provisioned_throughput.serve_from_throughput import is_routed, serve

logger = Logger()

# Names the request that bought the throughput, so that a repeated Create adopts only its own.
REQUEST_TAG = "distilled-router:request"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ProvisionedThroughputEnv.read())
    return answer_event(request, lambda: handle(request, client("bedrock"), _releases()))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_poll(request, lambda: check(request, client("bedrock")))


def serve_from_throughput(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step ServeFromThroughput: buy the throughput, or move it to the release's model in place."""
    del context
    digest, env = str(event["release"]), ServeFromThroughputEnv.read()
    releases = Releases(table(env.table_name))
    try:
        return wait_if_transient(lambda: serve(digest, client("bedrock"), releases, env), env.poll_seconds)
    except RouteChangedError as error:
        return waiting(str(error), 1)


def _releases() -> Releases | None:
    """Return the releases table if a release buys the throughput; None if the deployment does."""
    env = ProvisionedThroughputEnv.read()
    return Releases(table(env.table_name)) if env.table_name else None


def handle(
    event: Event, bedrock: Any, releases: Releases | None = None, now: Callable[[], datetime] = _utc_now
) -> dict[str, Any]:
    """Return the physical id; request changes in place on Update, and the deletion on Delete."""
    if event.is_delete:
        return _begin_delete(event, bedrock, releases, now())
    name, physical_id = str(event.properties["ProvisionedModelName"]), event.physical_id
    if event.request_type == "Create" or physical_id is None:
        return _begin_create(event, bedrock, name)
    if throughput.terms(physical_id) == throughput.terms(name):
        return _begin_in_place(event, bedrock, physical_id, now())
    return _begin_replacement(event, bedrock, physical_id, now())


def check(event: Event, bedrock: Any, now: Callable[[], datetime] = _utc_now) -> dict[str, Any]:
    """Continue buying, moving or deleting the throughput; return whether that is complete."""
    name = str(event.properties["ProvisionedModelName"])
    try:
        if event.is_delete:
            return complete() if _is_deleted(event, bedrock, now()) else pending()
        if not _is_bought_here(event):
            return complete({"ProvisionedModelName": name})
        arn = _ensure(event, bedrock, name, now())
    except NotYetError as error:
        logger.info("retrying later", reason=str(error))
        return pending()
    return complete({"ProvisionedModelName": name, "ProvisionedModelArn": arn}) if arn else pending()


def _ensure(event: Event, bedrock: Any, name: str, at: datetime) -> str | None:
    """Buy the throughput or move it to the model; return its ARN once it serves, None until then."""
    if not _is_rolled_back(event, bedrock, at):
        return None
    if event.raw.get("DeletedOutside"):
        raise ResourceError(throughput.deleted_outside(name))
    spec, model_arn = _spec(event), str(event.properties.get("ModelArn"))
    arn, requested = str(event.raw.get("Arn", "")), str(event.raw.get("RequestedArn", ""))
    found = throughput.ensure(bedrock, spec, model_arn, now=at, arn=arn, requested=requested)
    if found["status"] == throughput.FAILED:
        text = f"Throughput {name} failed: {found.get('failureMessage') or 'no reason given'}"
        # Delete new throughput that failed: it would keep the name, and the next attempt could not buy it.
        if not arn and throughput.delete(bedrock, found["provisionedModelArn"], spec.owner, now=at):
            text += " It was deleted."
        raise ResourceError(text)
    return str(found["provisionedModelArn"]) if throughput.serves(found, name, model_arn) else None


def _begin_create(event: Event, bedrock: Any, name: str) -> dict[str, Any]:
    """Return the name if it is free.

    Raises ResourceError if it is taken. The framework then drops the Delete that follows, which must not
    delete the throughput that another resource bought under this name.
    """
    if not _is_bought_here(event):
        return answer(name)
    try:
        existing = throughput.find(bedrock, name)
        tags = throughput.read_tags(bedrock, existing) if existing else {}
    except (NotYetError, ClientError, BotoCoreError) as error:
        if not isinstance(error, NotYetError) and not is_transient(error):
            raise
        logger.warning("could not check whether the name is free", throughput=name, error=str(error))
        return answer(name)
    if existing and (tags.get(OWNER_TAG), tags.get(REQUEST_TAG)) != (_owner(event), event.request_id):
        raise ResourceError(throughput.not_owned(name, existing, tags))
    return answer(name)


def _begin_in_place(event: Event, bedrock: Any, physical_id: str, at: datetime) -> dict[str, Any]:
    """Request another model, name or tags of the same throughput, also when an Update is rolled back.

    onEvent requests the move, so that isComplete can distinguish a failed move from one never requested.
    """
    old, name, owner = event.old_properties, str(event.properties["ProvisionedModelName"]), _owner(event)
    old_name = str(old.get("ProvisionedModelName", physical_id))
    existing = throughput.find_created_as(bedrock, physical_id, owner, name, old_name)
    if existing is None and old.get("Owner", owner) != owner:
        existing = throughput.find_created_as(bedrock, physical_id, str(old["Owner"]), name, old_name)
    if existing:
        _sync_tags(event, bedrock, existing)
    if not _is_bought_here(event):
        return answer(physical_id)
    # The rollback of a replacement: CloudFormation may not know the new throughput's name.
    is_rollback = throughput.terms(old_name) != throughput.terms(physical_id)
    carried: dict[str, Any] = {"RolledBack": old_name} if is_rollback else {}
    if existing is None:
        return answer(physical_id, **carried, DeletedOutside=bool(old.get("ModelArn")))
    arn, model_arn = existing["provisionedModelArn"], str(event.properties.get("ModelArn"))
    try:
        found = throughput.ensure(bedrock, _spec(event), model_arn, now=at, arn=arn)
    except NotYetError as error:
        logger.info("retrying later", reason=str(error))
    else:
        if throughput.is_requested(found, name, model_arn):
            carried["RequestedArn"] = arn
    return answer(physical_id, **carried, Arn=arn)


def _begin_replacement(event: Event, bedrock: Any, physical_id: str, at: datetime) -> dict[str, Any]:
    """Return the physical id for other model units or another commitment.

    Raises ResourceError if the old throughput is committed, since CloudFormation could not delete it and both
    would be billed.
    """
    name, owner = str(event.properties["ProvisionedModelName"]), _owner(event)
    existing = throughput.find(bedrock, name)
    if existing:
        # An earlier delivery of this event bought it, or a rollback returns to it.
        tags = throughput.read_tags(bedrock, existing)
        if tags.get(OWNER_TAG) != owner:
            raise ResourceError(throughput.not_owned(name, existing, tags))
        _sync_tags(event, bedrock, existing)
        return answer(tags.get(throughput.CREATED_AS_TAG, name))
    old = event.old_properties
    old_name = str(old.get("ProvisionedModelName", physical_id))
    replaced = throughput.find_created_as(bedrock, physical_id, str(old.get("Owner", owner)), old_name)
    term = throughput.committed(replaced, at, _price(old) or _price(event.properties)) if replaced else None
    if (
        term
        and not is_true(old.get("Retain", "false"))
        and not is_true(event.properties.get("Retain", "false"))
    ):
        raise ResourceError(
            f"{name} was not bought, since the throughput that it would replace is still committed and "
            f"billed. {term} Change model units or commitment after that date. {_how_to_retain(event)}"
        )
    return answer(name)


def _sync_tags(event: Event, bedrock: Any, existing: Mapping[str, Any]) -> None:
    wanted = {**event.properties.get("Tags", {}), OWNER_TAG: _owner(event)}
    throughput.sync_tags(bedrock, existing, wanted, event.old_properties.get("Tags", {}))


def _begin_delete(event: Event, bedrock: Any, releases: Releases | None, at: datetime) -> dict[str, Any]:
    """Request the deletion of the throughput that was created under the physical id.

    Throughput that still serves a release is kept: the settings changed to on-demand or to other model units.
    The release moves there, and the sweeper then deletes it.
    """
    name, owner = str(event.physical_id), _owner(event)
    present = str(event.properties.get("ProvisionedModelName", name))
    # CloudFormation generates an id for a resource whose create never answered.
    is_name = throughput.terms(name) is not None
    existing = throughput.find_created_as(bedrock, name, owner, present) if is_name else None
    if existing is None:
        logger.info("nothing to delete", physical_id=name)
        return answer(name)
    arn = existing["provisionedModelArn"]
    if releases and is_routed(releases, arn, at):
        logger.info("throughput kept: it serves a release; the sweeper deletes it later", arn=arn)
        return answer(name)
    if is_true(event.properties.get("Retain", "false")):
        logger.warning("throughput kept: Retain is set; it is billed until you delete it", arn=arn)
        return answer(name)
    model_arn = str(existing["modelArn"])
    carried: dict[str, Any] = (
        {"ModelArn": model_arn} if _must_delete_model(event, bedrock, releases, model_arn) else {}
    )
    _delete(event, event.properties, bedrock, arn, at)
    return answer(name, **carried, Arn=arn)


def _must_delete_model(event: Event, bedrock: Any, releases: Releases | None, model_arn: str) -> bool:
    """Return whether this Delete must also delete the model.

    If the stack is deleted, the release could not delete a model in use by throughput. While a release is
    declared, it may need the model again.
    """
    if releases is None or releases.declared() or is_true(event.properties.get("RetainModels", "true")):
        return False
    model = models.find(bedrock, model_arn)
    return model is not None and digest_of(_owner(event), model["modelName"]) is not None


def _is_deleted(event: Event, bedrock: Any, at: datetime) -> bool:
    """Continue the deletion; return whether the throughput, and the model if it must go, are deleted."""
    arn, model_arn = event.raw.get("Arn"), event.raw.get("ModelArn")
    if arn and not _delete(event, event.properties, bedrock, arn, at):
        return False
    if not model_arn:
        return True
    users = models.users(bedrock, model_arn)
    if users:
        logger.info("model kept: it is in use", model=model_arn, used_by=users)
        return True
    return models.delete(bedrock, model_arn)


def _is_rolled_back(event: Event, bedrock: Any, at: datetime) -> bool:
    """Return whether the rolled-back replacement's throughput is deleted, or there is none."""
    name, old = event.raw.get("RolledBack"), event.old_properties
    stranded = throughput.find_created_as(bedrock, name, str(old.get("Owner", ""))) if name else None
    if stranded is None:
        return True
    arn = stranded["provisionedModelArn"]
    if throughput.committed(stranded, at) and is_true(event.properties.get("Retain", "false")):
        logger.warning("throughput kept: it is committed, and Retain is set", arn=arn)
        return True
    return _delete(event, old, bedrock, arn, at)


def _delete(event: Event, properties: Mapping[str, Any], bedrock: Any, arn: str, at: datetime) -> bool:
    """Request the deletion of the throughput with these properties; return whether it is deleted."""
    owner, price = str(properties.get("Owner", "")), _price(properties)
    try:
        return throughput.delete(bedrock, arn, owner, now=at, hourly_price=price)
    except ResourceError as error:
        raise ResourceError(f"{error} {_how_to_retain(event)}") from error


def _how_to_retain(event: Event) -> str:
    return (
        "To keep it outside the stack until then, set retain (in the settings: retention.throughput = "
        '"retain"), deploy, and repeat this change; if the stack\'s deletion failed, run aws cloudformation '
        f"delete-stack --retain-resources {event.logical_id}. Then delete it yourself at the end of its term."
    )


def _is_bought_here(event: Event) -> bool:
    """Return whether the deployment buys the throughput, rather than a release."""
    return bool(event.properties.get("ModelArn"))


def _owner(event: Event) -> str:
    return str(event.properties.get("Owner", ""))


def _price(properties: Mapping[str, Any]) -> float | None:
    """Return the price in USD per model unit and hour; None if the settings have none."""
    price = properties.get("HourlyPriceUsd")
    return float(price) if price else None


def _spec(event: Event) -> throughput.ThroughputSpec:
    """Return the throughput in the resource's properties; CloudFormation sends every value as a string."""
    name = str(event.properties["ProvisionedModelName"])
    # Equal in repeated deliveries of one event, and different for any other event.
    token = f"{event.stack_id} {event.logical_id} {event.request_id} {name}"
    return throughput.ThroughputSpec(
        name=name,
        model_units=int(event.properties["ModelUnits"]),
        owner=_owner(event),
        token=hashlib.sha256(token.encode()).hexdigest(),
        commitment_duration=event.properties.get("CommitmentDuration") or None,
        tags={**event.properties.get("Tags", {}), REQUEST_TAG: event.request_id},
        created_as=str(event.physical_id),
    )
