"""Roles, and the permissions that they need.

ARNs follow the Service Authorization Reference. Bedrock chooses the ids of jobs, models, deployments and
throughput, so policies use wildcards for them, and a condition on the owner's tag if the action supports
`aws:ResourceTag`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common.grants import Conditions
from cdk_distilled_router.common.grants import Permission as Permission
from cdk_distilled_router.common.grants import encrypted as encrypted
from cdk_distilled_router.common.grants import grant as grant
from cdk_distilled_router.common.hosting import VpcConfig, ec2_arn
from cdk_distilled_router.common.nag import acknowledge, exported
from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.release.route import RELEASE, ROUTE, ROUTE_COPY, WAIT, item_key

# For all students: resources of an earlier student must still be stopped and deleted.
JOBS = "model-customization-job/*"
MODELS = "custom-model/*"
DEPLOYMENTS = "custom-model-deployment/*"
THROUGHPUTS = "provisioned-model/*"

NAMED_BY_BEDROCK = (
    "Bedrock chooses the ids of jobs, models, deployments and throughput, so their ARNs aren't known at "
    "synthesis. Permissions to change, stop or delete them require the owner's tag."
)
PROFILE_REGIONS = (
    "An inference profile chooses among the Regions of its geography, to which AWS can add, and needs the "
    "model in each of them."
)
INTERFACES = (
    "Bedrock creates network interfaces in the subnets, with ids that aren't known at synthesis (Bedrock "
    "user guide, protect customization jobs using a VPC)."
)
DESCRIBED = "These Describe actions don't support resources (Service Authorization Reference)."
OF_ONE_ROLE = (
    "The policy is for this one role and is deleted with it; a managed policy could be attached to others."
)
NO_RESOURCE = "These actions don't support resources (Service Authorization Reference)."


def function_role(scope: Construct, construct_id: str, permissions: Iterable[Permission] = ()) -> iam.Role:
    """Return a role that Lambda assumes, with these permissions; its functions add those for their logs."""
    role = iam.Role(scope, construct_id, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    acknowledge(role, "IAMNoInlinePolicy", OF_ONE_ROLE)
    grant(role, permissions)
    return role


def bedrock_role(
    scope: Construct, construct_id: str, *, jobs: str, description: str, permissions: Iterable[Permission]
) -> iam.Role:
    """Return a role that Bedrock assumes for jobs in this account and Region, e.g. `evaluation-job/*`."""
    role = iam.Role(
        scope,
        construct_id,
        assumed_by=iam.ServicePrincipal(
            "bedrock.amazonaws.com",
            conditions={
                "StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID},
                "ArnLike": {"aws:SourceArn": account_arn(jobs)},
            },
        ),
        description=description,
    )
    acknowledge(role, "IAMNoInlinePolicy", OF_ONE_ROLE)
    grant(role, permissions)
    return role


def tag_roles(scope: Construct, owner: str) -> None:
    """Put the owner's tag on all roles in a scope, by which `only_owners_write` recognises them."""
    cdk.Tags.of(scope).add(OWNER_TAG, owner, include_resource_types=["AWS::IAM::Role"])


def in_account(account: str | None = None) -> Conditions:
    """Return the condition that a bucket belongs to an account; default: the stack's.

    Anybody can create a bucket of the same name once its owner has deleted it.
    """
    return {"StringEquals": {"aws:ResourceAccount": account or cdk.Aws.ACCOUNT_ID}}


def account_arn(resource: str) -> str:
    """Return the ARN of a Bedrock resource in this account and Region, e.g. `custom-model-deployment/*`."""
    return f"arn:{cdk.Aws.PARTITION}:bedrock:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:{resource}"


def foundation_model_arn(model: str, region: str = cdk.Aws.REGION) -> str:
    """Return the ARN of a foundation model, which has no account."""
    return f"arn:{cdk.Aws.PARTITION}:bedrock:{region}::foundation-model/{model}"


def jobs(student: str) -> str:
    """Return the ARN pattern of a student's customization jobs, which contain the base model's id."""
    return account_arn(f"model-customization-job/{student}/*")


def models(student: str) -> str:
    """Return the ARN pattern of the custom models of a student."""
    return account_arn(f"custom-model/{student}/*")


def bedrock(
    actions: Sequence[str], resources: Sequence[str], conditions: Conditions | None = None
) -> Permission:
    """Return a permission for Bedrock actions, given without the prefix `bedrock:`."""
    because = NO_RESOURCE if list(resources) == ["*"] else NAMED_BY_BEDROCK
    return Permission([f"bedrock:{action}" for action in actions], resources, conditions or {}, because)


def owned(owner: str) -> Conditions:
    """Return the condition that a resource has the owner's tag."""
    return {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": owner}}


def tagged_for(owner: str) -> Conditions:
    """Return the condition that a request gives the new resource the owner's tag."""
    return {"StringEquals": {f"aws:RequestTag/{OWNER_TAG}": owner}}


def tagging(owner: str, resources: Sequence[str]) -> Permission:
    """Return the permission to put the owner's tag on new resources.

    It excludes resources with another owner's tag: retagging one would allow us to stop or delete it.
    """
    conditions = {
        **tagged_for(owner),
        "StringEqualsIfExists": {f"aws:ResourceTag/{OWNER_TAG}": owner},
    }
    return bedrock(["TagResource"], resources, conditions)


def retagging(owner: str, resources: Sequence[str]) -> list[Permission]:
    """Return the permissions to change tags of the owner's resources, except the owner's tag itself."""
    kept = {**owned(owner), "StringEqualsIfExists": {f"aws:RequestTag/{OWNER_TAG}": owner}}
    return [bedrock(["TagResource"], resources, kept), bedrock(["UntagResource"], resources, owned(owner))]


def is_profile(model: str) -> bool:
    """Return whether a model id is that of a `us.` inference profile."""
    return model.startswith("us.")


def profile(model: str) -> str:
    """Return the ARN of a `us.` inference profile."""
    return account_arn(f"inference-profile/{model}")


def model_of_profile(model: str) -> str:
    """Return the ARN pattern of a `us.` inference profile's model in all Regions of its geography."""
    return foundation_model_arn(model.removeprefix("us."), "us-*")


def invoke_endpoints(owner: str) -> Permission:
    """Return the permission to invoke the owner's deployments and throughput, of any release."""
    return bedrock(["InvokeModel"], [account_arn(DEPLOYMENTS), account_arn(THROUGHPUTS)], owned(owner))


def invoke(model: str) -> list[Permission]:
    """Return a function's permissions to invoke a foundation model, or a `us.` profile and its models."""
    if not is_profile(model):
        return [bedrock(["InvokeModel"], [foundation_model_arn(model)])]
    return [
        bedrock(["InvokeModel"], [profile(model)]),
        Permission(
            ["bedrock:InvokeModel"],
            [model_of_profile(model)],
            {"StringLike": {"bedrock:InferenceProfileArn": profile(model)}},
            f"{PROFILE_REGIONS} The condition allows only calls through the profile.",
        ),
    ]


def invoke_in_jobs(model: str) -> list[Permission]:
    """Return the same for a role that Bedrock assumes.

    AWS documents these roles without a condition on the profile; with it, jobs were reported to fail at the
    end of InProgress (Bedrock user guide, custom-model-job-access-security and batch-iam-sr).
    """
    return [
        replace(found, conditions={}, because=PROFILE_REGIONS) if found.conditions else found
        for found in invoke(model)
    ]


def batch(model: str, conditions: Conditions | None = None) -> list[Permission]:
    """Return the permissions to create batch jobs for a foundation model, or a `us.` profile's models."""
    action, jobs = "CreateModelInvocationJob", account_arn("model-invocation-job/*")
    if not is_profile(model):
        return [bedrock([action], [jobs, foundation_model_arn(model)], conditions)]
    return [
        bedrock([action], [jobs, profile(model)], conditions),
        Permission([f"bedrock:{action}"], [model_of_profile(model)], conditions or {}, PROFILE_REGIONS),
    ]


def machine_arn(name: str) -> str:
    """Return the ARN of a state machine in this account and Region."""
    return f"arn:{cdk.Aws.PARTITION}:states:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:stateMachine:{name}"


def executions(machine: str, *actions: str) -> Permission:
    """Return a permission for actions on all executions of a state machine, given its ARN."""
    arn = f"{machine.replace(':stateMachine:', ':execution:')}:*"
    because = "The names of executions aren't known at synthesis; these belong to this one state machine."
    return Permission([f"states:{action}" for action in actions], [arn], {}, because)


def pass_role(role: iam.IRole) -> Permission:
    """Return the permission to pass a role to Bedrock only."""
    return Permission(
        ["iam:PassRole"],
        [role.role_arn],
        {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
    )


# Tags that Bedrock puts on the network interfaces of its jobs.
_JOB_TAGS = {
    "model-customization-job/*": "BedrockModelCustomizationJobArn",
    "model-invocation-job/*": "BedrockModelInvocationJobArn",
}


def interfaces(vpc: VpcConfig, jobs: str) -> list[Permission]:
    """Return what the role of Bedrock jobs, e.g. `model-customization-job/*`, needs to run them in a VPC.

    Source: Bedrock user guide, attach VPC permissions to a model customization role, and to a batch inference
    role.
    """
    found, ours = ec2_arn("network-interface/*"), account_arn(jobs)
    describe = ("NetworkInterfaces", "Vpcs", "DhcpOptions", "Subnets", "SecurityGroups")
    delete = (
        "CreateNetworkInterfacePermission",
        "DeleteNetworkInterface",
        "DeleteNetworkInterfacePermission",
    )
    managed, job = "BedrockManaged", _JOB_TAGS[jobs]
    return [
        Permission([f"ec2:Describe{name}" for name in describe], ["*"], {}, DESCRIBED),
        Permission(
            ["ec2:CreateNetworkInterface"],
            [found],
            {
                "StringEquals": {f"aws:RequestTag/{managed}": "true"},
                "ArnEquals": {f"aws:RequestTag/{job}": ours},
            },
            INTERFACES,
        ),
        Permission(["ec2:CreateNetworkInterface"], [*vpc.subnets, *vpc.security_groups]),
        Permission(
            [f"ec2:{name}" for name in delete],
            ["*"],
            {
                "StringEquals": {f"ec2:ResourceTag/{managed}": "true"},
                "ArnEquals": {"ec2:Subnet": vpc.subnets, f"ec2:ResourceTag/{job}": ours},
            },
            INTERFACES,
        ),
        Permission(
            ["ec2:CreateTags"],
            [found],
            {
                "StringEquals": {"ec2:CreateAction": "CreateNetworkInterface"},
                "ForAllValues:StringEquals": {"aws:TagKeys": [managed, job]},
            },
            INTERFACES,
        ),
    ]


def objects(
    bucket: s3.IBucket, scope: Construct, actions: Sequence[str], folders: Sequence[str]
) -> Permission:
    """Return a permission for actions on the objects in folders of a bucket, e.g. `["datasets/*"]`."""
    arn = exported(bucket.bucket_arn, of=bucket, seen_from=scope)
    because = "Data sets, jobs and releases have folders named by digest, all in this one bucket."
    return Permission(
        [f"s3:{action}" for action in actions], [f"{arn}/{folder}" for folder in folders], {}, because
    )


def first_folder(key: str) -> str:
    """Return a pattern for the first folder of a key, or the key itself if it has none.

    A running job or release keeps its permission when the key changes within the folder. Under `labels/`,
    each owner has a folder, and only that one is included.
    """
    *folders, _ = key.split("/")
    depth = 2 if folders[:1] == ["labels"] else 1
    folder = "/".join(folders[:depth])
    return f"{folder}/*" if folder and not cdk.Token.is_unresolved(folder) else key


def listing(bucket: s3.IBucket, actions: Sequence[str], folders: Sequence[str]) -> Permission:
    """Return a permission for list actions on a bucket, limited to folders."""
    return Permission(
        [f"s3:{action}" for action in actions],
        [bucket.bucket_arn],
        {"StringLike": {"s3:prefix": list(folders)}},
    )


def purge(bucket: s3.IBucket, scope: Construct, folder: str) -> list[Permission]:
    """Return the permissions to delete a folder with all its versions."""
    return [
        objects(bucket, scope, ["DeleteObject", "DeleteObjectVersion"], [folder]),
        listing(bucket, ["ListBucketVersions"], [folder]),
    ]


def source_key(arn: str | None) -> Permission:
    """Return the permission to decrypt S3 objects in any Region with another team's key, if there is one."""
    via = {"kms:ViaService": "s3.*.amazonaws.com"}
    return Permission(["kms:Decrypt"], [arn] if arn else [], {"StringLike": via})


def model_key(key: kms.IKey) -> Permission:
    """Return what a role needs to create, deploy or invoke a model with a customer managed key.

    Source: Bedrock user guide, encryption of customization jobs.
    """
    return Permission(
        ["kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"],
        [key.key_arn],
        {"StringEquals": {"kms:ViaService": f"bedrock.{cdk.Aws.REGION}.amazonaws.com"}},
    )


def items(table: dynamodb.ITable, key: kms.IKey | None, actions: Sequence[str]) -> list[Permission]:
    """Return the permissions for actions on a table's items, and to decrypt them."""
    return [
        Permission([f"dynamodb:{action}" for action in actions], [table.table_arn]),
        encrypted(key, "dynamodb", write=False),
    ]


@dataclass(frozen=True)
class Writes:
    """Actions that write items of the releases table, and the names of these items."""

    actions: Sequence[str]
    names: Sequence[str]


UPDATE_RELEASES = Writes(["UpdateItem"], [f"{RELEASE}*"])
MOVE_ROUTE = Writes(["PutItem"], [ROUTE, f"{ROUTE_COPY}*"])
# In one transaction. It needs the permissions for the actions on its items (DynamoDB developer guide,
# transaction-apis-iam). AWS does not say whether each action is checked with the keys of all items, so both
# actions are allowed on all.
MOVE_ROUTE_WITH_RELEASE = Writes(["PutItem", "UpdateItem"], [*MOVE_ROUTE.names, *UPDATE_RELEASES.names])
WAIT_ITEMS = [f"{WAIT}*"]


def owner_items(
    owner: str,
    table: dynamodb.ITable,
    key: kms.IKey | None,
    reads: Sequence[str],
    *writes: Writes,
) -> list[Permission]:
    """Return the permissions to read an owner's items of a table that owners may share, and to write some.

    Scan has no condition for keys (DynamoDB developer guide, conditions for fine-grained access): it reads
    the items of all owners.
    """

    def on(actions: Sequence[str], names: Sequence[str]) -> Permission:
        condition = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [item_key(owner, n) for n in names]}}
        is_scan = list(actions) == ["Scan"]
        return Permission(
            [f"dynamodb:{action}" for action in actions], [table.table_arn], {} if is_scan else condition
        )

    return [
        *(on([action], ["*"]) for action in reads),
        *(on(each.actions, each.names) for each in writes),
        encrypted(key, "dynamodb", write=False),
    ]
