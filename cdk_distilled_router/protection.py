"""Policies of what belongs to the app: the data bucket, and the key that encrypts functions and logs."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from cdk_distilled_router.common.key_policy import services
from distilled_router.bedrock.naming import OWNER_TAG

# Data sets, the output of jobs, labels, and evaluations.
FOLDERS = ("datasets", "jobs", "labels", "releases")
# S3 Lifecycle needs none of these: it is no principal, and no policy limits it.
WRITES = ("s3:DeleteObject*", "s3:PutObject*", "s3:ReplicateDelete", "s3:ReplicateObject")


def only_owners_write(bucket: s3.IBucket, *owners: str) -> None:
    """Deny writing and deleting in the folders of this package to everybody but the owners' roles.

    Example::

        data = s3.Bucket(self, "OwnData", versioned=True)
        only_owners_write(data, "search")

    A role is recognised by the owner's tag, which the constructs put on their roles
    (`aws:PrincipalTag`). Anybody who may tag a role, or pass this tag to a session, can write; so can anybody
    who may change the bucket's policy.

    Args:
        bucket: the bucket, whose policy this app manages.
        owners: owners of the constructs that use it.

    Raises:
        ValueError: the bucket's policy is managed elsewhere.
    """
    condition = {"StringNotEquals": {f"aws:PrincipalTag/{OWNER_TAG}": list(owners)}}
    statement = iam.PolicyStatement(
        sid="OnlyOwnersWrite",
        effect=iam.Effect.DENY,
        principals=[iam.AnyPrincipal()],
        actions=list(WRITES),
        resources=[bucket.arn_for_objects(f"{folder}/*") for folder in FOLDERS],
        conditions=condition,
    )
    if not bucket.add_to_resource_policy(statement).statement_added:
        wanted = {
            "Sid": "OnlyOwnersWrite",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": WRITES,
            "Resource": [f"arn:aws:s3:::{bucket.bucket_name}/{folder}/*" for folder in FOLDERS],
            "Condition": condition,
        }
        raise ValueError(
            f"{bucket.node.path}: this app doesn't manage the bucket's policy. Add this statement to it "
            f"where it is managed: {json.dumps(wanted)}"
        )


def allow_services(key: kms.IKey, *owners: str) -> None:
    """Let CloudWatch Logs, Step Functions and alarms use the key of a `Hosting`.

    Call it in the stack whose constructs have this hosting.

    Example::

        key = kms.Key(self, "Key", enable_key_rotation=True)
        allow_services(key, "search")
        hosting = Hosting(log_days=30, key=key)

    Args:
        key: the key, whose policy this app manages.
        owners: owners of these constructs.

    Raises:
        ValueError: the key's policy is managed elsewhere.
    """
    stack = cdk.Stack.of(key)
    wanted = services(stack.account, stack.region, stack.stack_name, *owners, runtime=True)
    added = [key.add_to_resource_policy(iam.PolicyStatement.from_json(each)) for each in wanted]
    if not all(each.statement_added for each in added):
        raise ValueError(
            f"{key.node.path}: this app doesn't manage the key's policy. Add these statements to it where it "
            f"is managed: {json.dumps(stack.resolve(wanted))}"
        )
