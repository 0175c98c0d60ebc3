"""VPC, key and log retention of functions and state machines, and how long they doubt an absence."""

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

from cdk_distilled_router.common import vended_logs
from cdk_distilled_router.common.grants import Permission, encrypted, grant
from cdk_distilled_router.common.nag import acknowledge

# botocore: bedrock SubnetIds and SecurityGroupIds, lambda SubnetIds and SecurityGroupIds: the same limits.
MOST_SUBNETS, MOST_SECURITY_GROUPS = 16, 5
# From 60 to 900 (botocore: KmsDataKeyReusePeriodSeconds); this is the default of Step Functions.
KEY_REUSE_SECONDS = 300

_STATE_MACHINE = "kms:EncryptionContext:aws:states:stateMachineArn"

CREATED = (
    "Lambda creates network interfaces in the subnets, with ids that aren't known at synthesis. A Deny keeps "
    "the function's code from it."
)
CHANGED = (
    "Lambda checks these actions on network interfaces without a resource before it creates a function in a "
    "VPC (Lambda developer guide, configuration-vpc). A Deny keeps the function's code from them."
)
DESCRIBED = (
    "EC2 doesn't support resources for these Describe actions. A Deny keeps the function's code from them."
)


@dataclass(frozen=True, kw_only=True)
class VpcConfig:
    """The VPC of functions, or of a Bedrock job that reads and writes S3.

    Args:
        subnet_ids: 1 to 16; AWS recommends one in each Availability Zone.
        security_group_ids: 1 to 5.
        attached: whether functions and jobs run in it. False is a step on the way out of a VPC: the roles
            keep their permissions, with which Lambda and Bedrock delete the interfaces that they created.

    Raises:
        ValueError: there are none, or too many.
    """

    subnet_ids: Sequence[str]
    security_group_ids: Sequence[str]
    attached: bool = True

    def __post_init__(self) -> None:
        for name, found, most in (
            ("subnet_ids", self.subnet_ids, MOST_SUBNETS),
            ("security_group_ids", self.security_group_ids, MOST_SECURITY_GROUPS),
        ):
            if not 1 <= len(found) <= most:
                raise ValueError(f"vpc: {len(found)} {name}; allowed are 1 to {most}")

    @property
    def subnets(self) -> list[str]:
        """Return the ARNs of the subnets."""
        return [ec2_arn(f"subnet/{name}") for name in self.subnet_ids]

    @property
    def security_groups(self) -> list[str]:
        """Return the ARNs of the security groups."""
        return [ec2_arn(f"security-group/{name}") for name in self.security_group_ids]


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """VPC, key and log retention of functions and state machines.

    Args:
        log_days: days to keep logs.
        vpc: VPC of all functions, including those of the CDK's Provider framework. Its subnets must reach the
            services that `VpcEndpoints` declares. Default: functions run outside a VPC.
        key: encrypts log groups, environment variables and state machines. Its policy must allow CloudWatch
            Logs: see `allow_services`. Default: AWS's own keys.
        data_key: encrypts the table of custom resources' requests, which also holds keys of labels' seals.
            Default: `key`; without both an AWS key, and whoever may read all tables can forge seals.
        absence_seconds: for how long Bedrock must report that a resource does not exist before a function
            acts on it. Its reads lag behind writes; a new deployment may be found only after a minute. At
            most 75: a call may look three times, and functions have 5 minutes.
    """

    log_days: int = 90
    vpc: VpcConfig | None = None
    key: kms.IKey | None = None
    data_key: kms.IKey | None = None
    absence_seconds: float = 60.0

    @property
    def table_key(self) -> kms.IKey | None:
        """Return the key of the table of requests."""
        return self.data_key or self.key

    def log_group(
        self, scope: Construct, construct_id: str, *, vended_by: str = "", name: str = ""
    ) -> logs.LogGroup:
        """Return a log group that is deleted with the stack.

        Args:
            vended_by: service that delivers the logs, one of `vended_logs.SERVICES`. Default: a function.
            name: end of such a group's name. Default: the stack's name, and the path in it.
        """
        group = logs.LogGroup(
            scope, construct_id, encryption_key=self.key, removal_policy=cdk.RemovalPolicy.DESTROY
        )
        # The L2 construct accepts only an enum; the settings allow the days that CloudWatch Logs allows.
        resource = group.node.default_child
        assert isinstance(resource, logs.CfnLogGroup)
        resource.retention_in_days = self.log_days
        if vended_by:
            name = name or cdk.Names.unique_resource_name(
                group, max_length=256, separator="-", allowed_special_characters="-"
            )
            resource.log_group_name = f"{vended_logs.PREFIX}/{vended_by}/{name}"
        if self.key is None:
            acknowledge(
                group,
                "LogGroupEncrypted",
                "CloudWatch Logs encrypts it with an AWS key; encryption.runtime_key encrypts it with the "
                "stacks' key.",
            )
        return group

    def place(self, function: lambda_.Function, role: iam.Role) -> None:
        """Put a function into the VPC, encrypt its variables, and grant its role the permissions for both.

        The CDK's own `vpc` property would need an imported VPC with its zones; CloudFormation needs only ids.
        """
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        if self.vpc:
            grant(role, _interfaces(self.vpc))
            acknowledge(role, "IAMWrite", CHANGED)
        if vpc := attached(self.vpc):
            resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
                subnet_ids=list(vpc.subnet_ids), security_group_ids=list(vpc.security_group_ids)
            )
        if self.key:
            resource.kms_key_arn = self.key.key_arn
            grant(role, [encrypted(self.key, "lambda", write=False)])

    def encrypt(self, machine: IConstruct, role: iam.Role, arn: str) -> None:
        """Encrypt a state machine's definition and executions, and grant its role the use of the key.

        `arn` is the state machine's ARN or a pattern. Roles that describe executions need
        `describe_executions` as well (Step Functions developer guide, encryption-at-rest).
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
        # The role uses the key directly, not through a service. A map's children are `<machine>/<label>`.
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

    def describe_executions(self) -> Permission:
        """Return the use of the key that DescribeExecution needs; starting and stopping need none."""
        return encrypted(self.key, "states", write=False)


DEFAULT = Hosting()


def ec2_arn(resource: str) -> str:
    """Return the ARN of an EC2 resource in this account and Region."""
    return f"arn:{cdk.Aws.PARTITION}:ec2:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:{resource}"


def attached(vpc: VpcConfig | None) -> VpcConfig | None:
    """Return the VPC to run in; None if there is none, or if it is being left."""
    return vpc if vpc and vpc.attached else None


def _interfaces(vpc: VpcConfig) -> list[Permission]:
    """Return what Lambda needs from a function's role for its network interfaces.

    Before it creates a function, Lambda simulates the actions that change an interface, without a resource
    and without condition keys: a statement on `network-interface/*`, or with a condition, isn't seen, and the
    call ends with "does not have permissions to call DeleteNetworkInterface on EC2"
    (hashicorp/terraform-provider-aws#20698). Calls by a function's code have `lambda:SourceFunctionArn`,
    Lambda's own calls don't (Lambda developer guide, permissions-source-function-arn).
    """
    create, describe = "ec2:CreateNetworkInterface", ("DescribeNetworkInterfaces", "DescribeSubnets")
    change = ("DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses")
    functions = f"arn:{cdk.Aws.PARTITION}:lambda:{cdk.Aws.REGION}:{cdk.Aws.ACCOUNT_ID}:function:*"
    return [
        Permission(
            [create], [ec2_arn("network-interface/*"), *vpc.subnets, *vpc.security_groups], because=CREATED
        ),
        Permission([f"ec2:{name}" for name in change], ["*"], because=CHANGED),
        Permission([f"ec2:{name}" for name in describe], ["*"], because=DESCRIBED),
        Permission(
            [create, *(f"ec2:{name}" for name in (*change, *describe))],
            ["*"],
            {"ArnLike": {"lambda:SourceFunctionArn": functions}},
            denied=True,
        ),
    ]
