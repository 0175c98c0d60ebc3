"""What a role is granted: actions, resources and conditions, and why a wildcard has to stand among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from cdk_distilled_router.common.nag import acknowledge, shown

Conditions = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Permission:
    """One statement of a role's policy. `because` says why a resource holds a wildcard.

    On no resource it is no statement: that is what the use of a key comes to where there is no key.
    """

    actions: Sequence[str]
    resources: Sequence[str]
    conditions: Conditions = field(default_factory=dict)
    because: str = ""


def grant(role: iam.Role, permissions: Iterable[Permission]) -> None:
    """Add statements to a role, and accept cdk-nag's findings on their wildcards, each for its reason.

    Raises ValueError for a wildcard without a reason.
    """
    for permission in permissions:
        if not permission.resources:
            continue
        role.add_to_policy(
            iam.PolicyStatement(
                actions=list(permission.actions),
                resources=list(permission.resources),
                conditions={key: dict(value) for key, value in permission.conditions.items()} or None,
            )
        )
        for resource in (shown(role, resource) for resource in permission.resources):
            if "*" not in resource:
                continue
            if not permission.because:
                raise ValueError(f"{role.node.path}: the wildcard in {resource} needs a reason")
            acknowledge(role, f"IAM5[Resource::{resource}]", permission.because)


def encrypted(key: kms.IKey | None, *services: str, write: bool = True) -> Permission:
    """Use of a key through some services, e.g. `s3`, and through nothing else. None where nothing of the
    customer's encrypts: AWS's own keys need no permission."""
    return Permission(
        ["kms:Decrypt", "kms:GenerateDataKey"] if write else ["kms:Decrypt"],
        [key.key_arn] if key else [],
        {
            "StringEquals": {
                "kms:ViaService": [f"{service}.{cdk.Aws.REGION}.amazonaws.com" for service in services]
            }
        },
    )
