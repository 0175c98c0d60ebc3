"""Custom resource ProvisionedThroughput, and the release's step that buys it.

With a model's ARN among its properties the deployment buys the throughput: onEvent of Create only answers
with its name, isComplete buys it, so that CloudFormation always knows what to delete. Without one the stack
owns the name from the first deployment on, while a release buys it for a model that serves already
(`serve_from_throughput`).

The physical id is the name that it is made under, and stays when it gets another one. It says how many model
units it has and for how long they are committed, which Bedrock can't change: others are other throughput, and
the old one goes with CloudFormation's Delete once everything else has succeeded.
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
from distilled_router.env import ProvisionedThroughputEnv, ServeFromThroughputEnv
from distilled_router.release.table import Releases, RouteChangedError
from provisioned_throughput.serve_from_throughput import is_routed, serve

logger = Logger()

# Says which request bought it: a Create that comes twice finds its own, and takes nobody else's.
REQUEST_TAG = "distilled-router:request"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    return answer_event(lambda: handle(request, client("bedrock"), _releases()))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event)
    return answer_poll(lambda: check(request, client("bedrock")))


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
    """The table of the releases that buy it; None where the deployment does."""
    env = ProvisionedThroughputEnv.read()
    return Releases(table(env.table_name)) if env.table_name else None


def handle(
    event: Event, bedrock: Any, releases: Releases | None = None, now: Callable[[], datetime] = _utc_now
) -> dict[str, Any]:
    """Name the throughput on Create and Update, and ask for a move in place; ask for its end on Delete."""
    if event.is_delete:
        return _begin_delete(event, bedrock, releases, now())
    name, physical_id = str(event.properties["ProvisionedModelName"]), event.physical_id
    if event.request_type == "Create" or physical_id is None:
        return _begin_create(event, bedrock, name)
    if throughput.terms(physical_id) == throughput.terms(name):
        return _begin_in_place(event, bedrock, physical_id, now())
    return _begin_replacement(event, bedrock, physical_id, now())


def check(event: Event, bedrock: Any, now: Callable[[], datetime] = _utc_now) -> dict[str, Any]:
    """Buy or move the throughput and say whether it serves (Create, Update), or whether it is gone."""
    name = str(event.properties["ProvisionedModelName"])
    try:
        if event.is_delete:
            return complete() if _is_deleted(event, bedrock, now()) else pending()
        if not _is_bought_here(event):
            return complete({"ProvisionedModelName": name})
        arn = _served_by(event, bedrock, name, now())
    except NotYetError as error:
        logger.info("asked again later", reason=str(error))
        return pending()
    return complete({"ProvisionedModelName": name, "ProvisionedModelArn": arn}) if arn else pending()


def _served_by(event: Event, bedrock: Any, name: str, at: datetime) -> str | None:
    """The ARN of the throughput that serves as declared; None while it is bought or moved, which it goes on
    with."""
    if not _is_taken_back(event, bedrock, at):
        return None
    if event.raw.get("Gone"):
        raise ResourceError(throughput.deleted_outside(name))
    spec, model_arn = _spec(event), str(event.properties.get("ModelArn"))
    arn, asked = str(event.raw.get("Arn", "")), str(event.raw.get("Asked", ""))
    found = throughput.ensure(bedrock, spec, model_arn, now=at, arn=arn, requested=asked)
    if found["status"] == throughput.FAILED:
        text = f"Throughput {name} failed: {found.get('failureMessage') or 'no reason given'}"
        # What was new goes: it would keep the name, and the next attempt from buying another.
        if not arn and throughput.delete(bedrock, found["provisionedModelArn"], spec.owner, now=at):
            text += " It was deleted."
        raise ResourceError(text)
    return str(found["provisionedModelArn"]) if throughput.serves(found, name, model_arn) else None


def _begin_create(event: Event, bedrock: Any, name: str) -> dict[str, Any]:
    """Answer with the name, unless it is taken. What is raised here has the framework swallow the Delete that
    follows, which must not end what another resource, or another life of this one, bought under it."""
    if not _is_bought_here(event):
        return answer(name)
    try:
        existing = throughput.find(bedrock, name)
        tags = throughput.read_tags(bedrock, existing) if existing else {}
    except (NotYetError, ClientError, BotoCoreError) as error:
        if not isinstance(error, NotYetError) and not is_transient(error):
            raise
        logger.warning("not looked at before", throughput=name, error=str(error))
        return answer(name)
    if existing and (tags.get(OWNER_TAG), tags.get(REQUEST_TAG)) != (_owner(event), event.request_id):
        raise ResourceError(throughput.not_owned(name, existing, tags))
    return answer(name)


def _begin_in_place(event: Event, bedrock: Any, physical_id: str, at: datetime) -> dict[str, Any]:
    """Another model, name or tags of the same throughput; also an Update that is taken back.

    The move is asked for here, so that isComplete can tell one that failed from one that was never asked for.
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
    # A replacement that is taken back: CloudFormation may never have learnt the other one's name.
    is_taken_back = throughput.terms(old_name) != throughput.terms(physical_id)
    carried: dict[str, Any] = {"TakenBack": old_name} if is_taken_back else {}
    if existing is None:
        return answer(physical_id, **carried, Gone=bool(old.get("ModelArn")))
    arn, model_arn = existing["provisionedModelArn"], str(event.properties.get("ModelArn"))
    try:
        found = throughput.ensure(bedrock, _spec(event), model_arn, now=at, arn=arn)
    except NotYetError as error:
        logger.info("asked again later", reason=str(error))
    else:
        if throughput.is_requested(found, name, model_arn):
            carried["Asked"] = arn
    return answer(physical_id, **carried, Arn=arn)


def _begin_replacement(event: Event, bedrock: Any, physical_id: str, at: datetime) -> dict[str, Any]:
    """Other model units or another commitment. The old one must be one that CloudFormation's Delete can end:
    nothing is bought beside one that goes on being paid for."""
    name, owner = str(event.properties["ProvisionedModelName"]), _owner(event)
    existing = throughput.find(bedrock, name)
    if existing:
        # It was bought before: by this event, or it is the one that an Update which is taken back returns to.
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
            f"{name} was not bought, since the throughput that it would replace goes on being paid for. "
            f"{term} Change model units or commitment after that date. {_letting_go(event)}"
        )
    return answer(name)


def _sync_tags(event: Event, bedrock: Any, existing: Mapping[str, Any]) -> None:
    wanted = {**event.properties.get("Tags", {}), OWNER_TAG: _owner(event)}
    throughput.sync_tags(bedrock, existing, wanted, event.old_properties.get("Tags", {}))


def _begin_delete(event: Event, bedrock: Any, releases: Releases | None, at: datetime) -> dict[str, Any]:
    """Ask for the end of what was made under the physical id.

    One that serves a release now is left alone: the settings went back to on-demand, or to other model units;
    the release moves there, and the sweeper then removes this one.
    """
    name, owner = str(event.physical_id), _owner(event)
    present = str(event.properties.get("ProvisionedModelName", name))
    # CloudFormation invents an id for a resource whose create never answered: such a one is no name of ours.
    is_ours = throughput.terms(name) is not None
    existing = throughput.find_created_as(bedrock, name, owner, present) if is_ours else None
    if existing is None:
        logger.info("nothing to delete", physical_id=name)
        return answer(name)
    arn = existing["provisionedModelArn"]
    if releases and is_routed(releases, arn, at):
        logger.info("throughput kept: it serves, and goes once the release serves elsewhere", arn=arn)
        return answer(name)
    if is_true(event.properties.get("Retain", "false")):
        logger.warning("throughput kept: Retain is set; it is billed until somebody deletes it", arn=arn)
        return answer(name)
    model_arn = str(existing["modelArn"])
    carried: dict[str, Any] = (
        {"ModelArn": model_arn} if _is_releases_own(event, bedrock, releases, model_arn) else {}
    )
    _delete(event, event.properties, bedrock, arn, at)
    return answer(name, **carried, Arn=arn)


def _is_releases_own(event: Event, bedrock: Any, releases: Releases | None, model_arn: str) -> bool:
    """Whether nobody comes after us who would delete the model: on the way down the release could not, under
    a throughput. While a release is declared it may be needed again: training it was paid."""
    if releases is None or releases.declared() or is_true(event.properties.get("RetainModels", "true")):
        return False
    model = models.find(bedrock, model_arn)
    return model is not None and digest_of(_owner(event), model["modelName"]) is not None


def _is_deleted(event: Event, bedrock: Any, at: datetime) -> bool:
    """Whether the throughput is gone, and with it the model that only it served. Goes on with it."""
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


def _is_taken_back(event: Event, bedrock: Any, at: datetime) -> bool:
    """Whether what a replacement bought, that is taken back now, is gone."""
    name, old = event.raw.get("TakenBack"), event.old_properties
    stranded = throughput.find_created_as(bedrock, name, str(old.get("Owner", ""))) if name else None
    if stranded is None:
        return True
    arn = stranded["provisionedModelArn"]
    if throughput.committed(stranded, at) and is_true(event.properties.get("Retain", "false")):
        logger.warning("throughput kept: it is committed, and Retain is set", arn=arn)
        return True
    return _delete(event, old, bedrock, arn, at)


def _delete(event: Event, made_with: Mapping[str, Any], bedrock: Any, arn: str, at: datetime) -> bool:
    """Ask for the end of throughput that these properties describe; whether it is gone."""
    owner, price = str(made_with.get("Owner", "")), _price(made_with)
    try:
        return throughput.delete(bedrock, arn, owner, now=at, hourly_price=price)
    except ResourceError as error:
        raise ResourceError(f"{error} {_letting_go(event)}") from error


def _letting_go(event: Event) -> str:
    return (
        'To leave it behind before, set retain (in the settings: retention.throughput = "retain"), deploy, '
        "and do this again; of a stack whose deletion failed: aws cloudformation delete-stack "
        f"--retain-resources {event.logical_id}. Then delete it by hand at the end of its term."
    )


def _is_bought_here(event: Event) -> bool:
    """Whether the deployment buys it, and not a release."""
    return bool(event.properties.get("ModelArn"))


def _owner(event: Event) -> str:
    return str(event.properties.get("Owner", ""))


def _price(properties: Mapping[str, Any]) -> float | None:
    """USD for one model unit and hour, where somebody said it."""
    price = properties.get("HourlyPriceUsd")
    return float(price) if price else None


def _spec(event: Event) -> throughput.ThroughputSpec:
    """The throughput of the resource's properties; CloudFormation sends every value as a string."""
    name = str(event.properties["ProvisionedModelName"])
    # The same in every delivery of the event, and in no other one.
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
