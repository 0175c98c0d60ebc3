"""Provisioned throughput."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.errors import conflict, invalid, not_found, over_quota
from local.bedrock.job_progress import settle as settle_job
from local.bedrock.pages import list_page
from local.bedrock.settings import DAY

CREATE = "CreateProvisionedModelThroughput"
TERMS = {"OneMonth": 30 * DAY, "SixMonths": 180 * DAY}
_FAILED = "The provisioned throughput could not be created because of an internal error."


@dataclass(kw_only=True)
class Throughput:
    """One purchase of model units."""

    arn: str
    name: str
    model: str
    foundation: str
    units: int
    commitment: str | None
    created: float
    ready: float
    fails: str | None
    expires: float | None = None
    status: str = "Creating"
    failure: str | None = None
    modified: float = 0.0
    target: str | None = None
    update_fails: bool = False

    def resume(self, now: float) -> None:
        """End a stall."""
        if self.ready == inf:
            self.ready = now

    def models(self) -> set[str | None]:
        """Return the model in use and, during an update, the new one."""
        return {self.model, self.target}

    def settle(self, now: float) -> None:
        """Set the state that the throughput has at a time."""
        if self.status == "Creating" and self.ready <= now:
            self.status, self.failure, self.modified = (
                "Failed" if self.fails else "InService",
                self.fails,
                self.ready,
            )
        if self.status == "Updating" and self.ready <= now:
            if self.target and not self.update_fails:
                self.model = self.target
            self.status, self.target, self.modified = "InService", None, self.ready


def _model(account: Account, identifier: str) -> tuple[str, str]:
    """Return the ARN of a custom or foundation model, and the id of its foundation model."""
    for job in account.jobs.values():
        settle_job(account, job)
    if custom := account.model_named(identifier):
        return custom.arn, custom.base
    if ":custom-model/" in identifier or (":" not in identifier and "." not in identifier):
        raise not_found()
    model = account.catalogue.usable(identifier, account.clock.now())
    if "PROVISIONED" not in model.inference:
        raise invalid(f"The model {identifier} doesn't support Provisioned Throughput.")
    return account.catalogue.arn(model.id), model.id


def create(account: Account, parameters: Parameters) -> Result:
    """Handle CreateProvisionedModelThroughput."""
    if earlier := account.created_by_token(CREATE, parameters):
        return {"provisionedModelArn": earlier}
    settle_all(account)
    name = parameters["provisionedModelName"]
    if any(throughput.name == name for throughput in account.throughputs.values()):
        raise invalid(f"The provided provisioned model name is currently in use: {name}")
    model_arn, foundation = _model(account, parameters["modelId"])
    now = account.clock.now()
    if account.catalogue.usable(foundation, now).status(now) == "LEGACY":
        raise invalid(
            f"The model {foundation} is LEGACY: no new Provisioned Throughput can be bought for it."
        )
    _check_quota(account, parameters, foundation)
    stalled = account.faults.take("throughput_stalled")
    fault = account.faults.take("throughput_failed")
    commitment = parameters.get("commitmentDuration")
    throughput = Throughput(
        arn=account.arn(f"provisioned-model/{account.new_id()}"),
        name=name,
        model=model_arn,
        foundation=foundation,
        units=parameters["modelUnits"],
        commitment=commitment,
        created=now,
        modified=now,
        ready=inf if stalled else now + account.clock.scaled(account.settings.durations.throughput),
        # A commitment ends on a calendar date, so a scaled clock does not shorten it.
        expires=now + TERMS[commitment] if commitment else None,
        fails=(fault.message or _FAILED) if fault else None,
    )
    account.throughputs[throughput.arn] = throughput
    account.tag(throughput.arn, parameters.get("tags"))
    account.remember_token(CREATE, parameters, throughput.arn)
    return {"provisionedModelArn": throughput.arn}


def _check_quota(account: Account, parameters: Parameters, foundation: str) -> None:
    used = sum(throughput.units for throughput in account.throughputs.values())
    if used + parameters["modelUnits"] > account.settings.quotas.model_units:
        kind = "commitment" if "commitmentDuration" in parameters else "no commitment"
        raise over_quota(
            f"Your account does not currently have any {kind} model units reserved for {foundation}."
        )


def settle_all(account: Account) -> None:
    """Set the current state of all throughput."""
    now = account.clock.now()
    for throughput in account.throughputs.values():
        throughput.settle(now)


def find(account: Account, identifier: str) -> Throughput:
    """Return throughput by ARN or name, in its current state."""
    settle_all(account)
    by_name = (t for t in account.throughputs.values() if t.name == identifier)
    throughput = account.throughputs.get(identifier) or next(by_name, None)
    if throughput is None:
        raise not_found()
    return throughput


def _shown(account: Account, throughput: Throughput) -> Result:
    return {
        "provisionedModelName": throughput.name,
        "provisionedModelArn": throughput.arn,
        "modelArn": throughput.model,
        # After an update, the desired model is the current one.
        "desiredModelArn": throughput.target or throughput.model,
        "foundationModelArn": account.catalogue.arn(throughput.foundation),
        "modelUnits": throughput.units,
        "desiredModelUnits": throughput.units,
        "status": throughput.status,
        "commitmentDuration": throughput.commitment,
        "commitmentExpirationTime": throughput.expires,
        "creationTime": throughput.created,
        "lastModifiedTime": throughput.modified,
    }


def get(account: Account, parameters: Parameters) -> Result:
    """Handle GetProvisionedModelThroughput."""
    throughput = find(account, parameters["provisionedModelId"])
    return {**_shown(account, throughput), "failureMessage": throughput.failure}


def list_throughputs(account: Account, parameters: Parameters) -> Result:
    """Handle ListProvisionedModelThroughputs."""
    settle_all(account)
    return list_page(
        account,
        parameters,
        account.throughputs.values(),
        key="provisionedModelSummaries",
        summary=lambda throughput: _shown(account, throughput),
        name="provisionedModelName",
        filters={"modelArnEquals": "modelArn"},
    )


def update(account: Account, parameters: Parameters) -> Result:
    """Handle UpdateProvisionedModelThroughput: change the name, or the model to one of the same base."""
    throughput = find(account, parameters["provisionedModelId"])
    if throughput.status != "InService":
        raise invalid(
            f"The provisioned model {throughput.arn} can't be updated while it is {throughput.status}."
        )
    name = parameters.get("desiredProvisionedModelName", throughput.name)
    if any(other.name == name for other in account.throughputs.values() if other is not throughput):
        raise invalid(f"The provided provisioned model name is currently in use: {name}")
    if "desiredModelId" in parameters:
        model, foundation = _model(account, parameters["desiredModelId"])
        if foundation != throughput.foundation:
            raise invalid(f"The model {model} must have the base model {throughput.foundation}.")
        throughput.target = model
    now = account.clock.now()
    throughput.name, throughput.status, throughput.modified = name, "Updating", now
    stalled = account.faults.take("throughput_update_stalled")
    throughput.ready = (
        inf if stalled else now + account.clock.scaled(account.settings.durations.throughput_update)
    )
    throughput.update_fails = account.faults.take("throughput_update_failed") is not None
    return {}


def delete(account: Account, parameters: Parameters) -> Result:
    """Handle DeleteProvisionedModelThroughput; the throughput disappears at once."""
    throughput = find(account, parameters["provisionedModelId"])
    if throughput.status == "Updating":
        raise conflict()
    committed = throughput.expires is not None and throughput.expires > account.clock.now()
    if committed and throughput.status != "Failed":
        raise conflict()
    del account.throughputs[throughput.arn]
    account.tags.pop(throughput.arn, None)
    return {}
