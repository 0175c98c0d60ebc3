"""Stack 4, router: the router function with its live alias, and its HTTP API."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.release.construct import Release
from cdk_distilled_router.router import Router
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
        release: Release,
        env: cdk.Environment,
    ) -> None:
        """Declare the router of the environment's releases."""
        super().__init__(
            scope,
            construct_id,
            env=env,
            synthesizer=cdk.DefaultStackSynthesizer(qualifier=settings.bootstrap_qualifier),
            description="Distilled router: router and API",
        )
        self.router = Router(self, "Router", release=release, props=settings.router, hosting=hosting)
        cdk.CfnOutput(self, "ApiId", value=self.router.api.api_id)
        cdk.CfnOutput(self, "ApiUrl", value=self.router.api.api_endpoint)
        cdk.CfnOutput(self, "FunctionName", value=self.router.function.function_name)
