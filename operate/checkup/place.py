"""Checks of the account and Region: credentials, bootstrap stack, quotas, stacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import code
from operate import account
from operate.checkup.finding import SKIPPED, Finding
from operate.environment import Environment
from operate.errors import OperateError
from stacks.settings import STACKS

# The version that the templates' rule CheckBootstrapVersion requires; a test compares the two.
BOOTSTRAP_VERSION = 6
# Lambda refuses reservations that leave an account fewer executions than these (AWS Lambda quotas).
UNRESERVED = 100
# "Model units no-commitment Provisioned Throughputs across custom models"; 0 in new accounts in July 2026
# (cloud-custodian's test notes).
UNITS_QUOTA = "L-BE77399C"


def credentials(at: Environment) -> Iterator[Finding]:
    """Yield whether the credentials are those of the settings' account."""
    try:
        account.check(at.settings, at.aws.sts)
    except OperateError as error:
        yield Finding("problem", "credentials", str(error), error.advice)
    else:
        yield Finding("ok", "credentials", f"The account is {at.settings.account}.")


def bootstrap(at: Environment) -> Iterator[Finding]:
    """Yield whether the CDK's bootstrap stack is there, and new enough for the templates."""
    qualifier, region = at.settings.bootstrap_qualifier, at.settings.region
    name = f"/cdk-bootstrap/{qualifier}/version"
    step = "`make local` creates it." if at.variables else f"Run `make bootstrap ENV={at.name}`."
    try:
        found = str(at.aws.parameters.get_parameter(Name=name)["Parameter"]["Value"])
    except ClientError as error:
        if code(error) != "ParameterNotFound":
            raise
        text = f"No bootstrap stack with the qualifier {qualifier} is in {region}: {name} does not exist."
        yield Finding("problem", "bootstrap", text, step)
        return
    version = int(found) if found.isdecimal() else 0
    if version < BOOTSTRAP_VERSION:
        text = f"The bootstrap stack of {qualifier} has version {found}; {BOOTSTRAP_VERSION} is required."
        yield Finding("problem", "bootstrap", text, step)
    else:
        yield Finding("ok", "bootstrap", f"The stack of {qualifier} has version {version}.")


def concurrency(at: Environment) -> Iterator[Finding]:
    """Yield whether Lambda lets enough functions run at once."""
    limits = at.aws.functions.get_account_settings()["AccountLimit"]
    limit, unreserved = limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]
    reserved = at.settings.router.reserved_concurrency or 0
    needed = UNRESERVED + reserved
    # A deployed router's reservation has been granted already.
    is_deployed = stack(at, f"{at.settings.owner}-router") is not None
    left = unreserved - (0 if is_deployed else reserved)
    raise_it = "Raise the quota Concurrent executions in Service Quotas, AWS Lambda"
    if limit < needed:
        text = f"Lambda's quota is {limit:,} concurrent executions; this environment needs {needed:,}."
        yield Finding("problem", "concurrency", text, f"{raise_it}, to {needed:,}.")
    elif left < UNRESERVED:
        text = (
            f"Of {limit:,} concurrent executions, {unreserved:,} are not reserved, and this environment "
            f"needs {UNRESERVED if is_deployed else needed}."
        )
        yield Finding("problem", "concurrency", text, f"{raise_it}, or remove another reservation.")
    else:
        yield Finding("ok", "concurrency", f"{unreserved:,} of {limit:,} concurrent executions are free.")


def model_units(at: Environment) -> Iterator[Finding]:
    """Yield whether the quota lets the settings' throughput be bought; nothing if they buy none.

    The quotas for commitments have no known code, so that they are not checked.
    """
    bought = at.settings.endpoint.provisioned
    if bought is None or bought.term is not None:
        return
    if at.variables:
        yield Finding("skipped", "model units", f"Service Quotas is {SKIPPED}.")
        return
    try:
        quota = at.aws.quotas.get_service_quota(ServiceCode="bedrock", QuotaCode=UNITS_QUOTA)["Quota"]
    except ClientError as error:
        if code(error) != "NoSuchResourceException":
            raise
        text = f"Service Quotas does not know {UNITS_QUOTA} in {at.settings.region}."
        yield Finding("warning", "model units", text, "Look for model units there, under Amazon Bedrock.")
        return
    value = int(quota["Value"])
    text = f"The quota {UNITS_QUOTA} is {value}; endpoint.provisioned buys {bought.model_units}."
    if value < bought.model_units:
        step = "Raise it in Service Quotas, which takes days, or use on_demand."
        yield Finding("problem", "model units", text, step)
    else:
        yield Finding("ok", "model units", text)


def stacks(at: Environment) -> Iterator[Finding]:
    """Yield the state of the environment's stacks: one finding if all is well, else one for each stack."""
    names = [f"{at.settings.owner}-{name}" for name in STACKS]
    found = {name: stack(at, name) for name in names}
    if not any(found.values()):
        yield Finding("ok", "stacks", "None is deployed yet.", f"`{at.deploy_command}` deploys them.")
        return
    findings = [one for name in names for one in _of_stack(at, name, found[name])]
    yield from findings or [Finding("ok", "stacks", f"All {len(names)} are deployed.")]


def _of_stack(at: Environment, name: str, found: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Yield what is wrong with a stack."""
    if found is None:
        yield Finding("warning", "stacks", f"{name} is not deployed.", f"`{at.deploy_command}` deploys it.")
        return
    status, why = found["StackStatus"], str(found.get("StackStatusReason", ""))
    text = f"{name} is {status}{f': {why}' if why else '.'}"
    if status.endswith("_FAILED") or status == "ROLLBACK_COMPLETE":
        step = "See docs/runbook.md, Deployment of a stack failed."
        yield Finding("problem", "stacks", text, step)
    elif status.endswith("_IN_PROGRESS"):
        yield Finding("warning", "stacks", text, "Wait for it to end.")
    elif status == "UPDATE_ROLLBACK_COMPLETE":
        step = "The last deployment was rolled back: see docs/runbook.md, Deployment of a stack failed."
        yield Finding("warning", "stacks", text, step)
    drift = found.get("DriftInformation", {})
    if drift.get("StackDriftStatus") == "DRIFTED":
        step = f"`aws cloudformation describe-stack-resource-drifts --stack-name {name}` shows it."
        yield Finding("warning", "stacks", f"{name} had drifted when CloudFormation last looked.", step)


def stack(at: Environment, name: str) -> Mapping[str, Any] | None:
    """Return DescribeStacks' description of a stack, by name or ARN; None if there is none."""
    try:
        found = at.aws.cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if code(error) == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return next((one for one in found if one["StackStatus"] != "DELETE_COMPLETE"), None)
