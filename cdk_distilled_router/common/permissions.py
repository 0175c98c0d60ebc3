"""What roles may do: actions, resources and conditions, and why a wildcard has to stand among them.

ARNs are as the Service Authorization Reference has them. Resources that Bedrock names itself (a job, a model,
a deployment, a throughput) can't be named in a policy before they exist. Where the action takes the condition
key `aws:ResourceTag`, ours is asked for instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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

# Of any student: what was made from the one before must still be stopped and deleted.
JOBS = "model-customization-job/*"
MODELS = "custom-model/*"
DEPLOYMENTS = "custom-model-deployment/*"
THROUGHPUTS = "provisioned-model/*"

NAMED_BY_BEDROCK = (
    "Bedrock ends the ARNs of jobs, models, deployments and throughputs with an id of its own choice, so "
    "they can't be named beforehand. What deletes, stops or changes them asks for the owner's tag."
)
OF_GEOGRAPHY = (
    "A profile chooses among its geography's Regions, which AWS may extend, and needs the model in each."
)
INTERFACES = (
    "Bedrock puts network interfaces of its own into the given subnets and names them itself (Bedrock user "
    "guide, protect customization jobs using a VPC)."
)
DESCRIBED = "Descriptions of networks have no resource type of their own (Service Authorization Reference)."
OF_ONE_ROLE = (
    "It is written for this one role and goes with it; a managed policy could be attached to others."
)
NO_RESOURCE = "These actions have no resource type of their own (Service Authorization Reference)."


def function_role(scope: Construct, construct_id: str, permissions: Iterable[Permission] = ()) -> iam.Role:
    """A role that Lambda assumes, with exactly these permissions and those to write its functions' logs."""
    role = iam.Role(scope, construct_id, assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    acknowledge(role, "IAMNoInlinePolicy", OF_ONE_ROLE)
    grant(role, permissions)
    return role


def bedrock_role(
    scope: Construct, construct_id: str, *, jobs: str, description: str, permissions: Iterable[Permission]
) -> iam.Role:
    """A role that Bedrock assumes for jobs of this account and Region only, e.g. `evaluation-job/*`."""
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


def account_arn(resource: str) -> str:
    """A Bedrock resource of this account and Region, e.g. `custom-model-deployment/*`."""
    return f"arn:{cdk.Aws.PARTITION}:bedrock:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:{resource}"


def foundation_model_arn(model: str, region: str = cdk.Aws.REGION) -> str:
    """A foundation model; it belongs to no account."""
    return f"arn:{cdk.Aws.PARTITION}:bedrock:{region}::foundation-model/{model}"


def jobs(student: str) -> str:
    """The customization jobs of a student: Bedrock puts the base model's id before the job's own."""
    return account_arn(f"model-customization-job/{student}/*")


def models(student: str) -> str:
    """The custom models made from a student."""
    return account_arn(f"custom-model/{student}/*")


def bedrock(
    actions: Sequence[str], resources: Sequence[str], conditions: Conditions | None = None
) -> Permission:
    """Bedrock actions, written without their prefix, on foundation models or on what Bedrock names."""
    because = NO_RESOURCE if list(resources) == ["*"] else NAMED_BY_BEDROCK
    return Permission([f"bedrock:{action}" for action in actions], resources, conditions or {}, because)


def owned(owner: str) -> Conditions:
    """Only what carries the owner's tag."""
    return {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": owner}}


def tagged_for(owner: str) -> Conditions:
    """Only where the request gives the new resource the owner's tag."""
    return {"StringEquals": {f"aws:RequestTag/{OWNER_TAG}": owner}}


def tagging(owner: str, resources: Sequence[str]) -> Permission:
    """Giving new resources the owner's tag. What has another owner's already is not taken over by it, and
    then stopped or deleted as ours."""
    conditions = {
        **tagged_for(owner),
        "StringEqualsIfExists": {f"aws:ResourceTag/{OWNER_TAG}": owner},
    }
    return bedrock(["TagResource"], resources, conditions)


def retagging(owner: str, resources: Sequence[str]) -> list[Permission]:
    """Changing the tags of what carries the owner's, without giving it to another owner."""
    kept = {**owned(owner), "StringEqualsIfExists": {f"aws:RequestTag/{OWNER_TAG}": owner}}
    return [bedrock(["TagResource"], resources, kept), bedrock(["UntagResource"], resources, owned(owner))]


def is_profile(model: str) -> bool:
    """Whether a model is named by its `us.` inference profile."""
    return model.startswith("us.")


def profile(model: str) -> str:
    """The ARN of a `us.` inference profile."""
    return account_arn(f"inference-profile/{model}")


def behind(model: str) -> str:
    """The model behind a `us.` inference profile, in all Regions of its geography."""
    return foundation_model_arn(model.removeprefix("us."), "us-*")


def invoke(model: str) -> list[Permission]:
    """Inference on a foundation model's id, or on a `us.` profile and the models behind it."""
    if not is_profile(model):
        return [bedrock(["InvokeModel"], [foundation_model_arn(model)])]
    return [
        bedrock(["InvokeModel"], [profile(model)]),
        Permission(
            ["bedrock:InvokeModel"],
            [behind(model)],
            {"StringLike": {"bedrock:InferenceProfileArn": profile(model)}},
            f"{OF_GEOGRAPHY} This holds only for calls through the profile.",
        ),
    ]


def batch(model: str, conditions: Conditions | None = None) -> list[Permission]:
    """Making batch inference jobs with a foundation model's id, or with a `us.` profile and its models."""
    action, jobs = "CreateModelInvocationJob", account_arn("model-invocation-job/*")
    if not is_profile(model):
        return [bedrock([action], [jobs, foundation_model_arn(model)], conditions)]
    return [
        bedrock([action], [jobs, profile(model)], conditions),
        Permission([f"bedrock:{action}"], [behind(model)], conditions or {}, OF_GEOGRAPHY),
    ]


def machine_arn(name: str) -> str:
    """A state machine of this account and Region."""
    return f"arn:{cdk.Aws.PARTITION}:states:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:stateMachine:{name}"


def executions(machine: str, *actions: str) -> Permission:
    """Actions on the executions of a state machine, by its ARN."""
    arn = f"{machine.replace(':stateMachine:', ':execution:')}:*"
    because = "An execution has a name of its own; these are all of this one machine."
    return Permission([f"states:{action}" for action in actions], [arn], {}, because)


def pass_role(role: iam.IRole) -> Permission:
    """Handing a role to Bedrock, and to no other service."""
    return Permission(
        ["iam:PassRole"],
        [role.role_arn],
        {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
    )


# The tag by which Bedrock marks the network interfaces of a kind of job.
_JOB_TAGS = {
    "model-customization-job/*": "BedrockModelCustomizationJobArn",
    "model-invocation-job/*": "BedrockModelInvocationJobArn",
}


def interfaces(vpc: VpcConfig, jobs: str) -> list[Permission]:
    """What the role of a kind of job needs for jobs in a network, e.g. `model-customization-job/*` (Bedrock
    user guide, attach VPC permissions to a model customization role, and to a batch inference role)."""
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
    """Actions on the objects in some folders of a bucket, e.g. `["datasets/*"]`."""
    arn = exported(bucket.bucket_arn, of=bucket, seen_from=scope)
    because = "Each data set, job and release has a folder of its own digest in this one bucket."
    return Permission(
        [f"s3:{action}" for action in actions], [f"{arn}/{folder}" for folder in folders], {}, because
    )


def first_folder(key: str) -> str:
    """All of a key's first folder, since what runs keeps its permission while another key is declared. A key
    without folders is allowed alone."""
    folder, _, rest = key.partition("/")
    return f"{folder}/*" if rest and not cdk.Token.is_unresolved(folder) else key


def listing(bucket: s3.IBucket, actions: Sequence[str], folders: Sequence[str]) -> Permission:
    """List actions on a bucket, within some folders."""
    return Permission(
        [f"s3:{action}" for action in actions],
        [bucket.bucket_arn],
        {"StringLike": {"s3:prefix": list(folders)}},
    )


def purge(bucket: s3.IBucket, scope: Construct, folder: str) -> list[Permission]:
    """Delete a folder with all its versions."""
    return [
        objects(bucket, scope, ["DeleteObject", "DeleteObjectVersion"], [folder]),
        listing(bucket, ["ListBucketVersions"], [folder]),
    ]


def others_key(arn: str | None) -> Permission:
    """Reading what somebody else's key encrypts in S3, in whichever Region it lies. None where there is no
    such key."""
    via = {"kms:ViaService": "s3.*.amazonaws.com"}
    return Permission(["kms:Decrypt"], [arn] if arn else [], {"StringLike": via})


def model_key(key: kms.IKey) -> Permission:
    """What Bedrock asks of a role that makes, deploys or uses a model under a customer's key (Bedrock user
    guide, encryption of customization jobs)."""
    return Permission(
        ["kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"],
        [key.key_arn],
        {"StringEquals": {"kms:ViaService": f"bedrock.{cdk.Aws.REGION}.amazonaws.com"}},
    )


def items(table: dynamodb.ITable, key: kms.IKey | None, actions: Sequence[str]) -> list[Permission]:
    """Actions on a table, encrypted with a customer's key or with AWS's own."""
    return [
        Permission([f"dynamodb:{action}" for action in actions], [table.table_arn]),
        encrypted(key, "dynamodb", write=False),
    ]
