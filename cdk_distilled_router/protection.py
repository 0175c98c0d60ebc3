"""Protect the data of releases from everybody but the roles that create it."""

from __future__ import annotations

import json

from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

from distilled_router.bedrock.naming import OWNER_TAG

# Data sets, the output of jobs, labels, and evaluations.
FOLDERS = ("datasets", "jobs", "labels", "releases")
# S3 Lifecycle needs none of these: it is no principal, and no policy limits it.
WRITES = ("s3:DeleteObject*", "s3:PutObject*", "s3:ReplicateDelete", "s3:ReplicateObject")


def only_owners_write(bucket: s3.IBucket, *owners: str) -> None:
    """Deny writing and deleting in the folders of this package to everybody but the owners' roles.

    A role is recognised by the owner's tag, which the constructs put on their roles
    (`aws:PrincipalTag`). Anybody who may tag a role, or pass this tag to a session, can write; so can anybody
    who may change the bucket's policy.

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
