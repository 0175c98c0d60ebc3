"""Where functions run, and what encrypts what they and the state machines keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct, IConstruct

from cdk_distilled_router.common.grants import Permission, encrypted, grant
from cdk_distilled_router.common.nag import acknowledge

# botocore: bedrock SubnetIds and SecurityGroupIds, lambda SubnetIds and SecurityGroupIds: the same limits.
MOST_SUBNETS, MOST_SECURITY_GROUPS = 16, 5
# From 60 to 900 (botocore: KmsDataKeyReusePeriodSeconds); this is Step Functions' own default.
KEY_REUSE_SECONDS = 300

# What Lambda itself does with a function's role carries no such key, what the function's code does carries it
# (Lambda developer guide, permissions-source-function-arn).
BY_LAMBDA_ITSELF = {"Null": {"lambda:SourceFunctionArn": "true"}}
_STATE_MACHINE = "kms:EncryptionContext:aws:states:stateMachineArn"

INTERFACES = (
    "Lambda puts network interfaces into the given subnets and names them itself. The function's own code "
    "can't use this."
)
DESCRIBED = (
    "EC2 takes descriptions of interfaces and subnets on all resources only. The function's own code can't "
    "use this."
)


@dataclass(frozen=True, kw_only=True)
class VpcConfig:
    """The network in which functions run, or from which a job of Bedrock's reads and writes S3.

    Args:
        subnet_ids: 1 to 16; AWS recommends one in each Availability Zone.
        security_group_ids: 1 to 5.

    Raises:
        ValueError: too many, or none.
    """

    subnet_ids: Sequence[str]
    security_group_ids: Sequence[str]

    def __post_init__(self) -> None:
        for name, found, most in (
            ("subnet_ids", self.subnet_ids, MOST_SUBNETS),
            ("security_group_ids", self.security_group_ids, MOST_SECURITY_GROUPS),
        ):
            if not 1 <= len(found) <= most:
                raise ValueError(f"vpc: {len(found)} {name}, 1 to {most} are allowed")

    @property
    def subnets(self) -> list[str]:
        """Their ARNs."""
        return [ec2_arn(f"subnet/{name}") for name in self.subnet_ids]

    @property
    def security_groups(self) -> list[str]:
        """Their ARNs."""
        return [ec2_arn(f"security-group/{name}") for name in self.security_group_ids]


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """How functions and state machines run.

    Args:
        log_days: how long logs are kept.
        vpc: the network in which all functions run, those of the CDK's Provider framework too. Its subnets
            reach what `common.vpc_endpoints` lists. Default: none, they run in Lambda's own.
        key: encrypts log groups, environment variables and state machines. Its policy must let CloudWatch
            Logs use it (`stacks.keys`). Default: AWS's own keys do.
    """

    log_days: int = 90
    vpc: VpcConfig | None = None
    key: kms.IKey | None = None

    def log_group(self, scope: Construct, construct_id: str, *, name: str | None = None) -> logs.LogGroup:
        """A log group that goes with the stack."""
        group = logs.LogGroup(
            scope,
            construct_id,
            log_group_name=name,
            encryption_key=self.key,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        # The L2 takes an enum without numbers; the settings allow just what CloudWatch Logs allows.
        resource = group.node.default_child
        assert isinstance(resource, logs.CfnLogGroup)
        resource.retention_in_days = self.log_days
        if self.key is None:
            acknowledge(
                group,
                "LogGroupEncrypted",
                "CloudWatch Logs encrypts it with a key of its own; encryption.runtime_key has it encrypted "
                "with the stacks' key.",
            )
        return group

    def place(self, function: lambda_.Function, role: iam.Role) -> None:
        """Put a function into the network, encrypt its variables, and let its role have what that takes.

        The CDK's own way to do it would need an imported VPC with its zones, of which only the ids count.
        """
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        if self.vpc:
            resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
                subnet_ids=list(self.vpc.subnet_ids), security_group_ids=list(self.vpc.security_group_ids)
            )
            grant(role, _interfaces(self.vpc))
        if self.key:
            resource.kms_key_arn = self.key.key_arn
            grant(role, [encrypted(self.key, "lambda", write=False)])

    def encrypt(self, machine: IConstruct, role: iam.Role, arn: str) -> None:
        """Encrypt a state machine's definition and executions, and let its role have what that takes (Step
        Functions developer guide, encryption-at-rest). `arn` is its ARN, or a pattern of it.

        Whoever describes its executions needs the key as well: `reading`.
        """
        if self.key is None:
            return
        resource = machine.node.default_child
        assert isinstance(resource, sfn.CfnStateMachine)
        resource.encryption_configuration = sfn.CfnStateMachine.EncryptionConfigurationProperty(
            type="CUSTOMER_MANAGED_KMS_KEY",
            kms_key_id=self.key.key_arn,
            kms_data_key_reuse_period_seconds=KEY_REUSE_SECONDS,
        )
        # Not by the service: the role uses the key directly. A map's children are of `<machine>/<label>`.
        executions = {"StringLike": {_STATE_MACHINE: [arn, f"{arn}/*"]}}
        delivery = f"arn:{cdk.Aws.PARTITION}:logs:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:*"
        log = {"StringEquals": {"kms:EncryptionContext:SourceArn": delivery}}
        grant(
            role,
            [
                Permission(["kms:Decrypt", "kms:GenerateDataKey"], [self.key.key_arn], executions),
                Permission(["kms:GenerateDataKey"], [self.key.key_arn], log),
            ],
        )

    def reading(self) -> Permission:
        """What DescribeExecution asks of its caller; starting and stopping an execution ask for nothing."""
        return encrypted(self.key, "states", write=False)


DEFAULT = Hosting()


def ec2_arn(resource: str) -> str:
    """A resource of EC2 in this account and Region."""
    return f"arn:{cdk.Aws.PARTITION}:ec2:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:{resource}"


def _interfaces(vpc: VpcConfig) -> list[Permission]:
    """What Lambda needs for its network interfaces, from the function's role (Lambda developer guide,
    configuration-vpc): without DeleteNetworkInterface on all of them a function may not reach its VPC."""
    interfaces = ec2_arn("network-interface/*")
    managing = ("DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses")
    return [
        Permission(
            ["ec2:CreateNetworkInterface"],
            [interfaces, *vpc.subnets, *vpc.security_groups],
            BY_LAMBDA_ITSELF,
            INTERFACES,
        ),
        Permission([f"ec2:{name}" for name in managing], [interfaces], BY_LAMBDA_ITSELF, INTERFACES),
        Permission(
            ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"], ["*"], BY_LAMBDA_ITSELF, DESCRIBED
        ),
    ]
