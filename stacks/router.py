"""Stack 4, router: the function behind a live alias, and the HTTP API in front of it."""

from __future__ import annotations

import json

import aws_cdk as cdk
import jsii
from aws_cdk import aws_apigateway
from aws_cdk import aws_apigatewayv2 as gateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import REQUESTS
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.nag import acknowledge
from distilled_router.env import RouterEnv
from stacks.costs import token_prices
from stacks.settings import Settings

# HTTP API gives up after 30 s and the CDK takes 29; the router's own budget is far below.
INTEGRATION_TIMEOUT = cdk.Duration.seconds(29)


@jsii.implements(gateway.IAccessLogSettings)
class AccessLogs:
    """Who asked what and how it went, one JSON line a request, without the query."""

    def __init__(self, group: logs.ILogGroup) -> None:
        self._group = group

    @property
    def destination(self) -> gateway.IAccessLogDestination:
        """Where the lines go."""
        return gateway.LogGroupLogDestination(self._group)

    @property
    def format(self) -> aws_apigateway.AccessLogFormat:
        """What a line holds; API Gateway insists on the request id."""
        fields = {
            "requestId": "$context.requestId",
            "time": "$context.requestTime",
            "caller": "$context.identity.userArn",
            "ip": "$context.identity.sourceIp",
            "route": "$context.routeKey",
            "status": "$context.status",
            "latency": "$context.responseLatency",
            "error": "$context.error.message",
        }
        return aws_apigateway.AccessLogFormat.custom(json.dumps(fields))


class RouterStack(cdk.Stack):
    """Attributes:
    function: the router.
    api: the HTTP API.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        hosting: Hosting,
        table: dynamodb.ITable,
        key: kms.IKey,
        env: cdk.Environment,
    ) -> None:
        """Declare function, alias and API."""
        super().__init__(scope, construct_id, env=env, description="Distilled router: the router")
        self._settings, self._hosting = settings, hosting
        self.function = self._function(table, key)
        self.alias = lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version)
        self.api = self._api()
        cdk.CfnOutput(self, "ApiId", value=self.api.api_id)
        cdk.CfnOutput(self, "ApiUrl", value=self.api.api_endpoint)
        cdk.CfnOutput(self, "FunctionName", value=self.function.function_name)

    def _function(self, table: dynamodb.ITable, key: kms.IKey) -> Function:
        router = self._settings.router
        return Function(
            self,
            "Router",
            handler="router.handler",
            role=may.function_role(self, "RouterRole", self._permissions(table, key)),
            environment=RouterEnv(
                owner=self._settings.owner,
                table_name=table.table_name,
                base_model=router.base_model,
                base_prices=token_prices(router.base_model),
                student_prices=token_prices(self._settings.distillation.student),
                time_budget_ms=router.time_budget_ms,
                batch_time_budget_ms=router.batch_time_budget_ms,
                cache_entries=router.cache_entries,
                cache_seconds=router.cache_seconds,
                route_seconds=router.route_seconds,
                log_queries=router.log_queries,
                tracing=router.tracing,
            ),
            hosting=self._hosting,
            description="Weighs the channels of a video search query",
            caller=REQUESTS,
            props=FunctionProps(
                timeout=cdk.Duration.seconds(30),
                memory_mb=router.memory_mb,
                reserved_concurrency=router.reserved_concurrency,
                tracing=router.tracing,
            ),
        )

    def _permissions(self, table: dynamodb.ITable, key: kms.IKey) -> list[may.Permission]:
        # Of both kinds: where `endpoint.kind` changed, the route names the old one until a release is live.
        endpoints = [may.account_arn(may.DEPLOYMENTS), may.account_arn(may.THROUGHPUTS)]
        services = ["dynamodb", "bedrock"] if self._settings.encryption.model_key else ["dynamodb"]
        return [
            may.bedrock(["InvokeModel"], endpoints),
            *may.invoke(self._settings.router.base_model),
            may.Permission(
                ["dynamodb:GetItem"],
                [table.table_arn],
                {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["route"]}},
            ),
            may.encrypted(key, *services, write=False),
        ]

    def _api(self) -> gateway.HttpApi:
        api = gateway.HttpApi(
            self,
            "Api",
            api_name=self._settings.owner,
            description="Weighs the channels of a video search query",
            create_default_stage=False,
            default_authorizer=authorizers.HttpIamAuthorizer(),
        )
        integration = integrations.HttpLambdaIntegration(
            "Integration", self.alias, timeout=INTEGRATION_TIMEOUT
        )
        for path in ("/route", "/routes"):
            for route in api.add_routes(
                path=path, methods=[gateway.HttpMethod.POST], integration=integration
            ):
                acknowledge(
                    route,
                    "LambdaPublicAccess",
                    "Its source is this one route of this one API. The rule can't read an ARN that is joined "
                    "of parts.",
                )
        gateway.HttpStage(
            self,
            "Stage",
            http_api=api,
            stage_name="$default",
            auto_deploy=True,
            detailed_metrics_enabled=True,
            throttle=gateway.ThrottleSettings(
                rate_limit=self._settings.router.throttle_rate,
                burst_limit=self._settings.router.throttle_burst,
            ),
            access_log_settings=AccessLogs(self._hosting.log_group(self, "ApiLogs")),
        )
        return api
