"""Construct Router: the function that answers queries, with a live alias and an HTTP API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

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
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.access_log import ACCESS_LOG
from cdk_distilled_router.common.callers import REQUESTS
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.nag import acknowledge
from cdk_distilled_router.props import HeadProps, RouterProps
from distilled_router.cost.prices import PriceError, Prices
from distilled_router.env import RouterEnv
from distilled_router.release.route import HEAD_FILE, ROUTE, item_key, releases_folder

# An HTTP API gives up after 30 s, and the CDK allows 29; the router's time budget is smaller.
INTEGRATION_TIMEOUT = cdk.Duration.seconds(29)
BATCH_PATH = "/routes"
DESCRIPTION = "Returns the weights of a query's labels"


@dataclass(frozen=True, kw_only=True)
class HeadSource:
    """Where the releases' classification heads are, and how the router uses them.

    Args:
        bucket: the bucket that the releases write their reports to.
        key: the bucket's KMS key. Default: the one that the bucket was created or imported with.
        props: mode, and the share of queries by which head and student are compared.
    """

    bucket: s3.IBucket
    key: kms.IKey | None = None
    props: HeadProps = field(default_factory=HeadProps)


class Router(Construct):
    """Answers queries with a release's model, by the route in the releases table, or with a fallback.

    `Router(self, "Router", owner="search", table=release.table, student=job.student, props=RouterProps(...))`

    Attributes:
        role, function: the router's role and function.
        alias: the alias `live`, which the API invokes.
        api: the HTTP API with `POST /route` and `POST /routes`, and IAM authorization.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        table: dynamodb.ITable,
        student: str,
        props: RouterProps,
        model_key: kms.IKey | None = None,
        heads: HeadSource | None = None,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare function, alias and API.

        Args:
            owner: owner of the releases; also the API's name, and the dimension `service` of its metrics.
            table: the releases table with the route.
            student: base model of the releases, for the price of their tokens.
            props: base model, time budgets, caches and limits.
            model_key: customer managed key of the models, if they have one.
            heads: where classification heads are. Default: the router uses none.
            hosting: VPC, key and log retention.
        """
        super().__init__(scope, construct_id)
        self._props, self._hosting = props, hosting
        heads = None if heads is None or heads.props.is_off else heads
        permissions = _permissions(owner, table, props.base_model, model_key)
        if heads:
            permissions += _reading_heads(self, owner, heads)
        self.role = may.function_role(self, "Role", permissions)
        self.function = self._function(_variables(owner, table, student, props, heads))
        self.alias = lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version)
        self.api = self._api(owner)

    def _function(self, environment: RouterEnv) -> Function:
        return Function(
            self,
            "Function",
            handler="router.handler",
            role=self.role,
            environment=environment,
            hosting=self._hosting,
            description=DESCRIPTION,
            caller=REQUESTS,
            props=FunctionProps(
                timeout=cdk.Duration.seconds(30),
                memory_mb=self._props.memory_mb,
                reserved_concurrency=self._props.reserved_concurrency,
                tracing=self._props.tracing,
            ),
        )

    def _api(self, owner: str) -> gateway.HttpApi:
        api = gateway.HttpApi(
            self,
            "Api",
            api_name=owner,
            description=DESCRIPTION,
            create_default_stage=False,
            default_authorizer=authorizers.HttpIamAuthorizer(),
        )
        integration = integrations.HttpLambdaIntegration(
            "Integration", self.alias, timeout=INTEGRATION_TIMEOUT
        )
        routes = [
            route
            for path in ("/route", BATCH_PATH)
            for route in api.add_routes(path=path, methods=[gateway.HttpMethod.POST], integration=integration)
        ]
        for route in routes:
            acknowledge(
                route,
                "LambdaPublicAccess",
                "Only this route of this API may invoke it. The rule can't read an ARN that is joined from "
                "parts.",
            )
        self._stage(api).node.add_dependency(*routes)
        return api

    def _stage(self, api: gateway.HttpApi) -> gateway.HttpStage:
        """Declare the stage, where each route has its own throttle.

        It must depend on the routes: API Gateway refuses settings of a route that doesn't exist yet, "Unable
        to find Route by key" (aws/serverless-application-model#2479).
        """
        props = self._props
        stage = gateway.HttpStage(
            self,
            "Stage",
            http_api=api,
            stage_name="$default",
            auto_deploy=True,
            detailed_metrics_enabled=True,
            throttle=gateway.ThrottleSettings(
                rate_limit=props.throttle_rate, burst_limit=props.throttle_burst
            ),
            access_log_settings=AccessLogs(self._hosting.log_group(self, "ApiLogs", vended_by="apigateway")),
        )
        resource = stage.node.default_child
        assert isinstance(resource, gateway.CfnStage)
        # A route with settings of its own has none of the stage's: metrics would be off
        # (terraform-aws-modules/terraform-aws-apigateway-v2#80).
        resource.route_settings = {
            f"POST {BATCH_PATH}": {
                "DetailedMetricsEnabled": True,
                "ThrottlingBurstLimit": props.batch_throttle_burst,
                "ThrottlingRateLimit": props.batch_throttle_rate,
            }
        }
        return stage


@jsii.implements(gateway.IAccessLogSettings)
class AccessLogs:
    """Access logs of the API: a JSON line a request with caller, route and status, without the query."""

    def __init__(self, group: logs.ILogGroup) -> None:
        self._group = group

    @property
    def destination(self) -> gateway.IAccessLogDestination:
        """Return the log group."""
        return gateway.LogGroupLogDestination(self._group)

    @property
    def format(self) -> aws_apigateway.AccessLogFormat:
        """Return the format of a line."""
        return aws_apigateway.AccessLogFormat.custom(json.dumps(ACCESS_LOG))


def _variables(
    owner: str, table: dynamodb.ITable, student: str, props: RouterProps, heads: HeadSource | None
) -> RouterEnv:
    """Return the function's variables; properties of the router keep their names."""
    settings = {name: value for name, value in props if name in RouterEnv.names()}
    if heads:
        settings |= {
            "head_mode": heads.props.mode,
            "head_bucket": heads.bucket.bucket_name,
            "explore_share": heads.props.explore_share,
        }
    return RouterEnv(
        owner=owner,
        table_name=table.table_name,
        base_prices=_token_prices(props.base_model),
        student_prices=_token_prices(student),
        **settings,
    )


def _token_prices(model: str) -> str:
    """Return a model's prices for `router.costs.Rate`, in US dollars for a million input and output tokens.

    An example is "0.035 0.14". Empty for a model without a known price, whose cost is then not counted. The
    router reads the prices from its variables, because loading the price table would delay a cold start.
    """
    try:
        rate = Prices.load().rate(model)
    except PriceError:
        return ""
    return f"{rate.input} {rate.output}"


def _permissions(
    owner: str, table: dynamodb.ITable, base_model: str, model_key: kms.IKey | None
) -> list[may.Permission]:
    # Also of the kind before a change of `endpoint.kind`: the route has it until a new release is live.
    return [
        may.invoke_endpoints(owner),
        *may.invoke(base_model),
        may.Permission(
            ["dynamodb:GetItem"],
            [table.table_arn],
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [item_key(owner, ROUTE)]}},
        ),
        *_decrypting(table.encryption_key, model_key),
    ]


def _reading_heads(scope: Construct, owner: str, heads: HeadSource) -> list[may.Permission]:
    """Return what reading the heads of an owner's releases needs, and nothing else of their reports."""
    return [
        may.objects(heads.bucket, scope, ["GetObject"], [f"{releases_folder(owner)}*/{HEAD_FILE}"]),
        may.encrypted(heads.key or heads.bucket.encryption_key, "s3", write=False),
    ]


def _decrypting(table_key: kms.IKey | None, model_key: kms.IKey | None) -> list[may.Permission]:
    if table_key and model_key and table_key.key_arn == model_key.key_arn:
        return [may.encrypted(table_key, "dynamodb", "bedrock", write=False)]
    return [
        may.encrypted(table_key, "dynamodb", write=False),
        may.encrypted(model_key, "bedrock", write=False),
    ]
