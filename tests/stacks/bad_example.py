"""A stack that breaks the rules, to show that the checks can fail."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns

from cdk_distilled_router.common.nag import acknowledge
from stacks.application import PACKS

NAME = "bad-example"


def synthesize(outdir: Path, *plugins: cdk.IPolicyValidationPlugin) -> None:
    """Synthesize the stack with all packs; raise what app.synth() raises for their findings."""
    app = cdk.App(outdir=str(outdir), analytics_reporting=False)
    packs = [pack(app, verbose=True) for pack in PACKS.values()]
    cdk.Validations.of(app).add_plugins(*packs, *plugins)
    stack = cdk.Stack(app, NAME)
    s3.CfnBucket(
        stack,
        "Public",
        public_access_block_configuration=s3.CfnBucket.PublicAccessBlockConfigurationProperty(
            block_public_acls=False, block_public_policy=False
        ),
    )
    role = iam.Role(
        stack,
        "Role",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        managed_policies=[
            iam.ManagedPolicy.from_aws_managed_policy_name("service-role/AWSLambdaBasicExecutionRole")
        ],
    )
    role.add_to_policy(iam.PolicyStatement(actions=["s3:*"], resources=["*"]))
    # Neither a rule's bare name nor another resource's acknowledgement covers the wildcards above.
    acknowledge(role, "IAM5", "A rule with details is only acknowledged with the detail that it found.")
    acknowledge(role, "IAM5[Resource::arn:aws:s3:::one/*]", "This is about a resource that isn't there.")
    lambda_.CfnFunction(
        stack,
        "Old",
        role=role.role_arn,
        runtime="python3.9",
        handler="index.handler",
        code=lambda_.CfnFunction.CodeProperty(zip_file="handler = print"),
    )
    sns.Topic(stack, "Open")
    app.synth()
