"""Custom resource ProvisionedThroughput, and the release's step ServeFromThroughput.

onEvent of Create only returns the name, and isComplete buys the throughput; onEvent of Delete only returns
the id, and isComplete deletes it. So a temporary error ends neither, and nothing that costs is left behind.

The physical id is the name at creation; renaming the throughput does not change it. It contains the model
units and the commitment. Bedrock can't change these, so other values are a replacement, and CloudFormation
deletes the old throughput after the update has succeeded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.absence import confirmed
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
from distilled_router.aws.errors import NotYetError, ResourceError, is_transient, with_retries
from distilled_router.aws.state_machine import StageResult, pause, wait_if_transient, waited, waiting
from distilled_router.bedrock import purchase, throughput
from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import ResourceEnv, ServeFromThroughputEnv
from distilled_router.release.table import Releases, RouteChangedError
from provisioned_throughput.serve_from_throughput import serve

logger = Logger()

# Seconds for which onEvent of an Update repeats what failed temporarily.
RETRY_SECONDS = 60


def _utc_now() -> datetime:
    return datetime.now(UTC)


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_event(request, lambda each: handle(each, client("bedrock")))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_poll(request, lambda each: check(each, client("bedrock")))


def serve_from_throughput(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step ServeFromThroughput: buy the throughput, or move it to the release's model in place."""
    del context
    digest, env = str(event["release"]), ServeFromThroughputEnv.read()
    env = env.changed(poll_seconds=pause(waited(event), env.poll_seconds))
    releases = Releases(table(env.table_name), env.owner)
    try:
        return wait_if_transient(lambda: serve(digest, client("bedrock"), releases, env), env.poll_seconds)
    except RouteChangedError as error:
        return waiting(str(error), 1)


def handle(event: Event, bedrock: Any, now: Callable[[], datetime] = _utc_now) -> dict[str, Any]:
    """Return the physical id; on Update, request changes in place."""
    physical_id = event.physical_id
    if event.is_delete:
        return answer(str(physical_id))
    if event.request_type == "Create" or physical_id is None:
        return _begin_create(event, bedrock)
    is_in_place = throughput.terms(physical_id) == throughput.terms(_name(event))
    begin = _begin_in_place if is_in_place else _begin_replacement
    # An error of onEvent is final, and must not end a rollback.
    return with_retries(
        lambda: begin(event, bedrock, physical_id, now()), retryable=is_transient, seconds=RETRY_SECONDS
    )


def check(event: Event, bedrock: Any, now: Callable[[], datetime] = _utc_now) -> dict[str, Any]:
    """Continue buying, moving or deleting the throughput; return whether that is complete."""
    try:
        if event.is_delete:
            left = _delete_claimed(event, bedrock, now())
            return pending(f"Throughput is being deleted: {', '.join(left)}") if left else complete()
        arn = _ensure(event, bedrock, now())
    except NotYetError as error:
        logger.info("retrying later", reason=str(error))
        return pending(str(error))
    return complete({"ProvisionedModelName": _name(event), "ProvisionedModelArn": arn})


def _ensure(event: Event, bedrock: Any, at: datetime) -> str:
    """Buy the throughput or move it to the model, and return its ARN. Raises NotYetError until it serves."""
    if not _is_rolled_back(event, bedrock, at):
        raise NotYetError("The throughput of the update that is rolled back is being deleted.")
    name, model_arn, seconds = _name(event), str(event.properties.get("ModelArn")), event.absence_seconds
    if event.raw.get("DeletedOutside"):
        raise ResourceError(purchase.deleted_outside(name, Claimant.of(event)))
    arn = str(event.raw.get("Arn", ""))
    found = purchase.ensure(
        bedrock,
        _spec(event),
        model_arn,
        now=at,
        arn=arn,
        requested=str(event.raw.get("RequestedArn", "")),
        absence_seconds=seconds,
        check_newest=event.check_newest,
    )
    if found["status"] == throughput.FAILED:
        text = f"Throughput {name} failed: {found.get('failureMessage') or 'no reason given'}"
        # Delete new throughput that failed: it would keep the name, and the next attempt could not buy it.
        if not arn and throughput.delete(bedrock, found["provisionedModelArn"], _owner(event), now=at):
            text += " It was deleted."
        raise ResourceError(text)
    if not throughput.serves(found, name, model_arn):
        raise NotYetError(f"Throughput {name} is {found['status']}, and does not serve {model_arn} yet.")
    # The request that is rolled back may have bought throughput that was not found at first.
    if event.raw.get("RolledBack") and (late := confirmed(lambda: _stranded(event, bedrock), seconds)):
        raise NotYetError(f"{late['provisionedModelArn']} of the update that is rolled back was found late.")
    return str(found["provisionedModelArn"])


def _begin_create(event: Event, bedrock: Any) -> dict[str, Any]:
    """Return the physical id if the name is free or the resource's own.

    Raises ResourceError if it is taken. The framework then drops the Delete that follows.
    """
    name = _name(event)
    try:
        return answer(_present(event, bedrock) or name)
    except (NotYetError, ClientError, BotoCoreError) as error:
        if not isinstance(error, NotYetError) and not is_transient(error):
            raise
        logger.warning("could not check whether the name is free", throughput=name, error=str(error))
        return answer(name)


def _present(event: Event, bedrock: Any) -> str | None:
    """Return the physical id of existing throughput of the wanted name; None if there is none.

    An earlier request bought it, or it was kept when its resource was deleted. Raises ResourceError if
    another resource claims it.
    """
    name, claimant = _name(event), Claimant.of(event)
    existing = throughput.find(bedrock, name)
    if existing is None:
        return None
    tags = throughput.read_tags(bedrock, existing)
    if claimant.holds(tags):
        return throughput.created_as(existing, tags)
    purchase.check_own(bedrock, _spec(event, created_as=name), existing, event.absence_seconds)
    return name


def _begin_in_place(event: Event, bedrock: Any, physical_id: str, at: datetime) -> dict[str, Any]:
    """Request another model, name or tags of the same throughput, also when an Update is rolled back.

    onEvent requests the move, so that isComplete can distinguish a failed move from one never requested.
    """
    name, model_arn = _name(event), str(event.properties.get("ModelArn"))
    old_name = str(event.old_properties.get("ProvisionedModelName", physical_id))
    claimant = Claimant.of(event)
    existing = confirmed(
        lambda: throughput.find_own(bedrock, claimant, physical_id, name, old_name), event.absence_seconds
    )
    # The rollback of a replacement: CloudFormation may not know the new throughput's name.
    is_rollback = throughput.terms(old_name) != throughput.terms(physical_id)
    carried: dict[str, Any] = {"RolledBack": old_name} if is_rollback else {}
    if existing is None:
        return answer(physical_id, **carried, DeletedOutside=True)
    _sync_tags(event, bedrock, existing)
    arn = existing["provisionedModelArn"]
    try:
        found = purchase.ensure(
            bedrock,
            _spec(event),
            model_arn,
            now=at,
            arn=arn,
            absence_seconds=event.absence_seconds,
            check_newest=event.check_newest,
        )
    except NotYetError as error:
        logger.info("retrying later", reason=str(error))
    else:
        if throughput.is_requested(found, name, model_arn):
            carried["RequestedArn"] = arn
    return answer(physical_id, **carried, Arn=arn)


def _begin_replacement(event: Event, bedrock: Any, physical_id: str, at: datetime) -> dict[str, Any]:
    """Return the physical id for other model units or another commitment.

    Raises ResourceError if the name is taken, or if the old throughput is committed, since CloudFormation
    could not delete it and both would be billed.
    """
    name, old = _name(event), event.old_properties
    if present := _present(event, bedrock):
        # An earlier delivery of this event bought it, or a rollback returns to it.
        if existing := throughput.find(bedrock, name):
            _sync_tags(event, bedrock, existing)
        return answer(present)
    if is_true(old.get("Retain", "false")) or is_true(event.properties.get("Retain", "false")):
        return answer(name)
    claimant, old_name = Claimant.of(event), str(old.get("ProvisionedModelName", physical_id))
    replaced = confirmed(
        lambda: throughput.find_own(bedrock, claimant, physical_id, old_name), event.absence_seconds
    )
    price = _price(old) or _price(event.properties)
    if replaced and (term := throughput.committed(replaced, at, price)):
        raise ResourceError(
            f"{name} was not bought, since the throughput that it would replace is still committed and "
            f"billed. {term} Change model units or commitment after that date. {_how_to_retain(event)}"
        )
    return answer(name)


def _sync_tags(event: Event, bedrock: Any, existing: Mapping[str, Any]) -> None:
    wanted = {**event.properties.get("Tags", {}), OWNER_TAG: _owner(event)}
    throughput.sync_tags(bedrock, existing, wanted, event.old_properties.get("Tags", {}))


def _delete_claimed(event: Event, bedrock: Any, at: datetime) -> list[str]:
    """Continue the deletion; return the ARNs and states of what is left."""
    left, refusals = list[str](), list[str]()
    for existing in _to_delete(event, bedrock):
        if _is_retained(event, existing, at):
            throughput.leave(bedrock, existing, Claimant.of(event), at)
            continue
        try:
            gone = _delete(event, event.properties, bedrock, existing["provisionedModelArn"], at)
        except ResourceError as error:
            refusals.append(str(error))
        else:
            left += [] if gone else [f"{existing['provisionedModelArn']} is {existing['status']}"]
    if refusals:
        raise ResourceError(" ".join(refusals))
    return left


def _to_delete(event: Event, bedrock: Any) -> Iterator[Mapping[str, Any]]:
    """Yield what this Delete is for.

    If the physical id is one that this resource returned, that is the throughput that was created under it.
    CloudFormation invents an id for a Create that never answered; then it is all that the resource claims.
    """
    physical_id, claimant = str(event.physical_id), Claimant.of(event)
    if _is_invented(physical_id):
        yield from (item for item, _ in throughput.claimed(bedrock, claimant))
    elif existing := throughput.find_own(bedrock, claimant, physical_id, _name(event)):
        yield existing


def _is_retained(event: Event, existing: Mapping[str, Any], at: datetime) -> bool:
    """Return whether Retain keeps the throughput. What never served is kept only while it is committed."""
    if not is_true(event.properties.get("Retain", "false")):
        return False
    never_served = event.is_abandoned or _is_invented(str(event.physical_id))
    return not never_served or throughput.committed(existing, at) is not None


def _is_invented(physical_id: str) -> bool:
    return throughput.terms(physical_id) is None


def _is_rolled_back(event: Event, bedrock: Any, at: datetime) -> bool:
    """Return whether the rolled-back replacement's throughput is deleted, or there is none."""
    if not event.raw.get("RolledBack") or (stranded := _stranded(event, bedrock)) is None:
        return True
    if throughput.committed(stranded, at) and is_true(event.properties.get("Retain", "false")):
        throughput.leave(bedrock, stranded, Claimant.of(event), at)
        return True
    return _delete(event, event.old_properties, bedrock, stranded["provisionedModelArn"], at)


def _stranded(event: Event, bedrock: Any) -> dict[str, Any] | None:
    """Return the throughput that a rolled-back replacement bought, or None."""
    return throughput.find_own(bedrock, Claimant.of(event), str(event.raw["RolledBack"]))


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


def _name(event: Event) -> str:
    return str(event.properties["ProvisionedModelName"])


def _owner(event: Event) -> str:
    return str(event.properties.get("Owner", ""))


def _price(properties: Mapping[str, Any]) -> float | None:
    """Return the price in USD per model unit and hour; None if the settings have none."""
    price = properties.get("HourlyPriceUsd")
    return float(price) if price else None


def _spec(event: Event, created_as: str = "") -> purchase.ThroughputSpec:
    """Return the throughput in the resource's properties; CloudFormation sends every value as a string."""
    name, claimant, owner = _name(event), Claimant.of(event), _owner(event)
    # Equal in repeated deliveries of one event, and different for any other event.
    token = f"{event.stack_id} {event.logical_id} {event.request_id} {name}"
    return purchase.ThroughputSpec(
        name=name,
        model_units=int(event.properties["ModelUnits"]),
        owner=owner,
        claimant=claimant,
        token=hashlib.sha256(token.encode()).hexdigest(),
        commitment_duration=event.properties.get("CommitmentDuration") or None,
        tags={**event.properties.get("Tags", {}), **claimant.tags(owner, request=event.request_id)},
        created_as=created_as or str(event.physical_id),
    )
