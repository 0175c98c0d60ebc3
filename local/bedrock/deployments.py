"""On-demand deployments of custom models."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.errors import invalid, not_found, over_quota
from local.bedrock.models import find as find_model
from local.bedrock.pages import list_page

CREATE = "CreateCustomModelDeployment"
_FAILED = "The custom model deployment failed because of an internal error."


@dataclass(kw_only=True)
class Deployment:
    """One deployment."""

    arn: str
    name: str
    description: str | None
    model: str
    created: float
    ready: float
    fails: str | None
    status: str = "Creating"
    failure: str | None = None
    modified: float | None = None
    target: str | None = None
    update_status: str | None = None
    update_ready: float = 0.0
    update_fails: bool = False

    @property
    def mutating(self) -> bool:
        """Whether the deployment is being created or updated."""
        return self.status == "Creating" or self.update_status == "Updating"

    def resume(self, now: float) -> None:
        """End a stall."""
        if self.ready == inf:
            self.ready = now

    def models(self) -> set[str | None]:
        """Return the model in use and, during an update, the new one."""
        return {self.model, self.target if self.update_status == "Updating" else None}

    def settle(self, now: float) -> None:
        """Set the state that the deployment has at a time."""
        if self.status == "Creating" and self.ready <= now:
            self.status, self.failure, self.modified = (
                "Failed" if self.fails else "Active",
                self.fails,
                self.ready,
            )
        if self.update_status == "Updating" and self.update_ready <= now:
            self.modified = self.update_ready
            self.update_status = "UpdateFailed" if self.update_fails else "UpdateCompleted"
            if not self.update_fails and self.target:
                self.model = self.target


def create(account: Account, parameters: Parameters) -> Result:
    """Handle CreateCustomModelDeployment."""
    if earlier := account.created_by_token(CREATE, parameters):
        return {"customModelDeploymentArn": earlier}
    settle_all(account)
    name = parameters["modelDeploymentName"]
    if any(deployment.name == name for deployment in account.deployments.values()):
        raise invalid(f"The provided model deployment name is currently in use: {name}")
    model = find_model(account, parameters["modelArn"])
    quota = account.settings.quotas.deployments_in_progress
    if sum(deployment.status == "Creating" for deployment in account.deployments.values()) >= quota:
        raise over_quota(
            f"Your account has {quota} custom model deployments in progress, which is its quota."
        )
    now = account.clock.now()
    stalled = account.faults.take("deployment_stalled")
    fault = account.faults.take("deployment_failed")
    deployment = Deployment(
        arn=account.arn(f"custom-model-deployment/{account.new_id()}"),
        name=name,
        description=parameters.get("description"),
        model=model.arn,
        created=now,
        ready=inf if stalled else now + account.clock.scaled(account.settings.durations.deployment),
        fails=(fault.message or _FAILED) if fault else None,
    )
    account.deployments[deployment.arn] = deployment
    account.tag(deployment.arn, parameters.get("tags"))
    account.remember_token(CREATE, parameters, deployment.arn)
    return {"customModelDeploymentArn": deployment.arn}


def settle_all(account: Account) -> None:
    """Set the current state of all deployments."""
    now = account.clock.now()
    for deployment in account.deployments.values():
        deployment.settle(now)


def find(account: Account, identifier: str) -> Deployment:
    """Return a deployment by ARN or name, in its current state."""
    settle_all(account)
    by_name = (d for d in account.deployments.values() if d.name == identifier)
    deployment = account.deployments.get(identifier) or next(by_name, None)
    if deployment is None:
        raise not_found()
    return deployment


def get(account: Account, parameters: Parameters) -> Result:
    """Handle GetCustomModelDeployment."""
    deployment = find(account, parameters["customModelDeploymentIdentifier"])
    result = _shown(deployment)
    result["modelDeploymentName"] = result.pop("customModelDeploymentName")
    result["description"] = deployment.description
    if deployment.update_status:
        result["updateDetails"] = {"modelArn": deployment.target, "updateStatus": deployment.update_status}
    return result


def _shown(deployment: Deployment) -> Result:
    return {
        "customModelDeploymentArn": deployment.arn,
        "customModelDeploymentName": deployment.name,
        "modelArn": deployment.model,
        "createdAt": deployment.created,
        "status": deployment.status,
        "lastUpdatedAt": deployment.modified,
        "failureMessage": deployment.failure,
    }


def list_deployments(account: Account, parameters: Parameters) -> Result:
    """Handle ListCustomModelDeployments."""
    settle_all(account)
    return list_page(
        account,
        parameters,
        account.deployments.values(),
        key="modelDeploymentSummaries",
        summary=_shown,
        name="customModelDeploymentName",
        created="createdAt",
        filters={"modelArnEquals": "modelArn"},
    )


def update(account: Account, parameters: Parameters) -> Result:
    """Handle UpdateCustomModelDeployment: the old model answers until the update is completed."""
    deployment = find(account, parameters["customModelDeploymentIdentifier"])
    _refuse_mutating(deployment)
    if deployment.status == "Failed":
        raise invalid(f"The custom model deployment {deployment.arn} has failed and can't be updated.")
    model = find_model(account, parameters["modelArn"])
    present = account.models.get(deployment.model)
    if present and present.base != model.base:
        raise invalid(
            f"The model {model.arn} must have the base model {present.base}, like the deployment's model."
        )
    now = account.clock.now()
    deployment.target, deployment.update_status, deployment.modified = model.arn, "Updating", now
    deployment.update_ready = now + account.clock.scaled(account.settings.durations.deployment_update)
    deployment.update_fails = account.faults.take("deployment_update_failed") is not None
    return {"customModelDeploymentArn": deployment.arn}


def delete(account: Account, parameters: Parameters) -> Result:
    """Handle DeleteCustomModelDeployment."""
    deployment = find(account, parameters["customModelDeploymentIdentifier"])
    _refuse_mutating(deployment)
    del account.deployments[deployment.arn]
    account.tags.pop(deployment.arn, None)
    return {}


def _refuse_mutating(deployment: Deployment) -> None:
    if deployment.mutating:
        raise invalid(
            "Custom model deployment is in a mutating state. Wait until the operation in progress is done."
        )
