"""Stack 4, router: the router function with its live alias, and its HTTP API."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.router import HeadSource, Router
from stacks.settings import Settings


class RouterStack(cdk.Stack):
    """Attributes:
    router: the construct with function and API.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        hosting: Hosting,
        table: dynamodb.ITable,
        bucket: s3.IBucket,
        key: kms.IKey,
        env: cdk.Environment,
    ) -> None:
        """Declare the router, which reads the route from `table` and classification heads from `bucket`.

        `key` encrypts models if so set.
        """
        super().__init__(
            scope,
            construct_id,
            env=env,
            synthesizer=cdk.DefaultStackSynthesizer(qualifier=settings.bootstrap_qualifier),
            description="Distilled router: router and API",
        )
        self.router = Router(
            self,
            "Router",
            owner=settings.owner,
            table=table,
            student=settings.distillation.student,
            props=settings.router,
            model_key=key if settings.encryption.model_key else None,
            heads=None if settings.head.is_off else HeadSource(bucket=bucket, props=settings.head),
            hosting=hosting,
        )
        cdk.CfnOutput(self, "ApiId", value=self.router.api.api_id)
        cdk.CfnOutput(self, "ApiUrl", value=self.router.api.api_endpoint)
        cdk.CfnOutput(self, "FunctionName", value=self.router.function.function_name)
