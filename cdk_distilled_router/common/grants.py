"""Grant permissions to roles, with a reason for each wildcard."""

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
    """One statement of a role's policy. `because` is the reason for a wildcard in a resource.

    Without resources it adds no statement, such as the use of a key if there is no key. `denied` makes it a
    Deny.
    """

    actions: Sequence[str]
    resources: Sequence[str]
    conditions: Conditions = field(default_factory=dict)
    because: str = ""
    denied: bool = False


def grant(role: iam.Role, permissions: Iterable[Permission]) -> None:
    """Add statements to a role, and acknowledge cdk-nag's findings about their wildcards.

    Raises:
        ValueError: a wildcard has no reason.
    """
    for permission in permissions:
        if not permission.resources:
            continue
        role.add_to_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY if permission.denied else iam.Effect.ALLOW,
                actions=list(permission.actions),
                resources=list(permission.resources),
                conditions={key: dict(value) for key, value in permission.conditions.items()} or None,
            )
        )
        if permission.denied:
            continue
        for resource in (shown(role, resource) for resource in permission.resources):
            if "*" not in resource:
                continue
            if not permission.because:
                raise ValueError(f"{role.node.path}: the wildcard in {resource} needs a reason")
            acknowledge(role, f"IAM5[Resource::{resource}]", permission.because)


def encrypted(key: kms.IKey | None, *services: str, write: bool = True) -> Permission:
    """Return the permission to use a key through the given services only, e.g. `s3`.

    It is empty without a customer managed key: AWS's own keys need no permission.
    """
    return Permission(
        ["kms:Decrypt", "kms:GenerateDataKey"] if write else ["kms:Decrypt"],
        [key.key_arn] if key else [],
        {
            "StringEquals": {
                "kms:ViaService": [f"{service}.{cdk.Aws.REGION}.amazonaws.com" for service in services]
            }
        },
    )
