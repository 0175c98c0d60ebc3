"""Buy provisioned throughput once, or move it to another model or name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_conflict,
    is_missing,
    is_name_in_use,
    is_transient,
)
from distilled_router.aws.fence import SupersededError, checked_before_each_try
from distilled_router.bedrock import models, ownership, throughput
from distilled_router.bedrock.lifecycle import check_usable
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags
from distilled_router.bedrock.ownership import Claimant


def _always() -> None:
    """Allow every purchase."""


@dataclass(frozen=True)
class ThroughputSpec:
    """The throughput to buy, as CreateProvisionedModelThroughput needs it.

    Attributes:
        name: the name that it should have.
        model_units: how many model units to buy.
        owner: value of the owner's tag.
        claimant: the logical resource that buys it.
        token: the client request token. Each attempt to buy has its own: a call that is sent twice buys once,
            and throughput that was deleted can be bought again.
        commitment_duration: `OneMonth` or `SixMonths`; None is billed by the hour.
        tags: tags besides those of owner and claim.
        created_as: the name that it was created with, if that differs from `name`.
    """

    name: str
    model_units: int
    owner: str
    claimant: Claimant
    token: str
    commitment_duration: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    created_as: str = ""

    @property
    def first_name(self) -> str:
        """Return the name that it is, or was, created with."""
        return self.created_as or self.name


def ensure(
    bedrock: Any,
    spec: ThroughputSpec,
    model_arn: str,
    *,
    now: datetime,
    arn: str = "",
    requested: str = "",
    absence_seconds: float = 0.0,
    check_newest: Callable[[], None] = _always,
) -> dict[str, Any]:
    """Buy throughput for this model, or move the existing one to it, and return its description.

    Call again until it serves (`throughput.serves`).

    Args:
        bedrock: a bedrock client.
        spec: the throughput.
        model_arn: the model to serve.
        now: the time.
        arn: the existing throughput to move, whatever its name; nothing is bought then.
        requested: ARN of the throughput for which the same move was requested before. If it is in service
            with another model or name, the move has failed.
        absence_seconds: for how long it must not be found before it is bought.
        check_newest: raises SupersededError if nothing may be bought or moved any more. It is called before
            that, and again after a purchase, which is undone then.

    Raises:
        NotYetError: The call failed temporarily.
        ResourceError: It belongs to another resource, the model can't be served, the move failed, or Bedrock
            refuses the request.
    """
    existing = confirmed(lambda: _existing(bedrock, spec, arn), absence_seconds)
    if existing is None:
        if arn:
            raise ResourceError(deleted_outside(spec.name, spec.claimant))
        _check_model(bedrock, spec, model_arn, now, absence_seconds)
        with checked_before_each_try(bedrock, "CreateProvisionedModelThroughput", check_newest):
            bought = _create(bedrock, spec, model_arn, absence_seconds)
        _undo_if_superseded(bedrock, bought, check_newest, absence_seconds)
        return bought
    check_own(bedrock, spec, existing, absence_seconds)
    if requested == existing["provisionedModelArn"]:
        existing = _seen_moving(bedrock, spec, existing, model_arn, absence_seconds)
    if not _needs_move(existing, spec, model_arn):
        return existing
    if requested == existing["provisionedModelArn"]:
        raise ResourceError(
            f"Throughput {spec.name} did not move to {model_arn}: it still serves {existing['modelArn']} as "
            f"{existing['provisionedModelName']} ({existing.get('failureMessage') or 'no reason given'})."
        )
    _check_model(bedrock, spec, model_arn, now, absence_seconds)
    with checked_before_each_try(bedrock, "UpdateProvisionedModelThroughput", check_newest):
        return _move(bedrock, spec, existing, model_arn)


def _needs_move(existing: Mapping[str, Any], spec: ThroughputSpec, model_arn: str) -> bool:
    """Return whether it is in service with another model or name, and not being moved."""
    is_idle = existing["status"] == throughput.IN_SERVICE and not throughput.is_moving(existing, model_arn)
    return is_idle and (existing["provisionedModelName"], existing["modelArn"]) != (spec.name, model_arn)


def _seen_moving(
    bedrock: Any, spec: ThroughputSpec, existing: dict[str, Any], model_arn: str, seconds: float
) -> dict[str, Any]:
    """Return the description of throughput whose move was requested; reads may show it late."""

    def moving() -> dict[str, Any] | None:
        found = throughput.find(bedrock, existing["provisionedModelArn"])
        return found if found and not _needs_move(found, spec, model_arn) else None

    return (confirmed(moving, seconds) if _needs_move(existing, spec, model_arn) else None) or existing


def _existing(bedrock: Any, spec: ThroughputSpec, arn: str) -> dict[str, Any] | None:
    """Return the resource's own throughput; else whatever has its name; None if there is neither."""
    if arn:
        return throughput.find(bedrock, arn)
    own = throughput.find_own(bedrock, spec.claimant, spec.first_name, spec.name)
    return own or throughput.find(bedrock, spec.name)


def _undo_if_superseded(
    bedrock: Any, bought: Mapping[str, Any], check_newest: Callable[[], None], seconds: float
) -> None:
    """Delete what was just bought if the request was superseded meanwhile, and raise SupersededError."""
    arn = bought["provisionedModelArn"]
    try:
        check_newest()
    except SupersededError as error:
        # It may be too young to be found or deleted.
        if confirmed(lambda: _deleted_now(bedrock, arn) or None, seconds):
            raise
        raise SupersededError(f"{error} {arn} was bought, and deleting it failed.") from error


def _deleted_now(bedrock: Any, arn: str) -> bool:
    """Return whether DeleteProvisionedModelThroughput succeeded."""
    try:
        bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
    except ClientError as error:
        if is_missing(error) or is_conflict(error) or is_transient(error):
            return False
        if code(error) == "ValidationException":
            return False
        raise
    return True


def deleted_outside(name: str, claimant: Claimant) -> str:
    """Return the error text for throughput that was deleted outside of its stack."""
    return (
        f"Throughput {name} was deleted outside of its stack. Nothing was bought in its place, since that "
        "costs money. To buy it again, remove the resource from the stack, deploy, add it again and deploy "
        "again; or declare another number of model units. If the rollback fails for this reason, too, first "
        f"run aws cloudformation continue-update-rollback --resources-to-skip {claimant.logical_id}."
    )


def _check_model(
    bedrock: Any, spec: ThroughputSpec, model_arn: str, now: datetime, absence_seconds: float
) -> None:
    """Raise ResourceError for a model that can't be served, before anything is paid for."""
    begin = f"Throughput {spec.name} was neither bought nor moved: model {model_arn}"
    model = confirmed(lambda: models.find(bedrock, model_arn), absence_seconds)
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


def _create(bedrock: Any, spec: ThroughputSpec, model_arn: str, absence_seconds: float) -> dict[str, Any]:
    tags = {
        **spec.tags,
        OWNER_TAG: spec.owner,
        **spec.claimant.tag,
        throughput.CREATED_AS_TAG: spec.first_name,
    }
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
        if existing := throughput.find(bedrock, spec.name):
            check_own(bedrock, spec, existing, absence_seconds)
            return existing
        # A name that is in use, although it is not found, is looked for again by the next call.
        is_taken = isinstance(error, ClientError) and is_name_in_use(error)
        refusal = _refusal(spec, error)
        raise (NotYetError(str(refusal)) if is_taken else refusal) from error
    # Reading by name may not find it yet.
    return {
        "provisionedModelArn": created["provisionedModelArn"],
        "provisionedModelName": spec.name,
        "modelArn": model_arn,
        "desiredModelArn": model_arn,
        "status": throughput.CREATING,
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
        now = throughput.find(bedrock, arn)
        if now and (now["status"] == throughput.UPDATING or throughput.serves(now, spec.name, model_arn)):
            return now
        raise _refusal(spec, error) from error
    return {
        **existing,
        "provisionedModelName": spec.name,
        "desiredModelArn": model_arn,
        "status": throughput.UPDATING,
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


def check_own(
    bedrock: Any, spec: ThroughputSpec, existing: Mapping[str, Any], absence_seconds: float = 0.0
) -> None:
    """Return if the throughput is the resource's own; claim it first if it is the owner's and unclaimed.

    Unclaimed throughput was kept on purpose when its resource was deleted. Raises ResourceError for another
    resource's.
    """

    def usable() -> dict[str, str] | None:
        """Return the tags if they allow to use it. New tags may not be seen yet."""
        tags = throughput.read_tags(bedrock, existing)
        is_unclaimed = tags.get(OWNER_TAG) == spec.owner and not ownership.claims(tags)
        is_own = throughput.is_own(existing, tags, spec.claimant, spec.first_name)
        return tags if is_own or is_unclaimed else None

    tags = confirmed(usable, absence_seconds)
    if tags is None:
        raise ResourceError(not_owned(spec.name, existing, throughput.read_tags(bedrock, existing)))
    if not spec.claimant.holds(tags):
        arn = existing["provisionedModelArn"]
        ownership.add_tags(bedrock, arn, {**spec.claimant.tag, throughput.CREATED_AS_TAG: spec.first_name})
        # Another resource may have claimed it at the same time.
        tags = throughput.read_tags(bedrock, existing)
        if not spec.claimant.may_remove(tags):
            ownership.release(bedrock, arn, spec.claimant)
            raise ResourceError(not_owned(spec.name, existing, throughput.read_tags(bedrock, existing)))


def not_owned(name: str, existing: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Return the error text for existing throughput of that name which belongs to another resource."""
    return (
        f"A provisioned throughput named {name} exists and does not belong to this resource: "
        f"{existing['provisionedModelArn']} ({ownership.described(tags)}). Choose another name, or delete "
        "it. ProvisionedThroughput.from_provisioned_model_arn uses throughput of another resource."
    )
