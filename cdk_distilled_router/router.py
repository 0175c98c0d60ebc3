"""Construct Router: the function that answers queries, with a live alias and an HTTP API."""

from __future__ import annotations

import json

import aws_cdk as cdk
import jsii
from aws_cdk import aws_apigateway
from aws_cdk import aws_apigatewayv2 as gateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.access_log import ACCESS_LOG
from cdk_distilled_router.common.callers import REQUESTS
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.nag import acknowledge
from cdk_distilled_router.props import RouterProps
from cdk_distilled_router.release.construct import Release
from cdk_distilled_router.release.reference import HeadSource, ReleaseReference
from distilled_router.cost.prices import PriceError, Prices
from distilled_router.env import RouterEnv
from distilled_router.release.route import HEAD_FILE, ROUTE, item_key, releases_folder

# An HTTP API gives up after 30 s, and the CDK allows 29; the router's time budget is smaller.
INTEGRATION_TIMEOUT = cdk.Duration.seconds(29)
BATCH_PATH = "/routes"
DESCRIPTION = "Returns the weights of a query's labels"


DEFAULT_PROPS = RouterProps(base_model="us.amazon.nova-micro-v1:0")


class Router(Construct):
    """Answers queries with the live release's model, or with a fallback: base model, head, static weights.

    It follows the route in the releases table, also to a candidate during its rollout. Until a release is
    live, the base model answers.

    Example::

        router = Router(self, "Router", release=release)
        cdk.CfnOutput(self, "ApiUrl", value=router.api.api_endpoint)
        caller = iam.Role(self, "Caller", assumed_by=iam.AccountRootPrincipal())
        router.alias.grant_invoke(caller)

    Attributes:
        role: role of the function.
        function: the function.
        alias: the alias `live` of the function, which the API invokes; it can be invoked directly, too.
        api: the HTTP API with `POST /route` and `POST /routes`, and IAM authorization.

    Cost:
        For each request: API Gateway, Lambda, tokens of the model that answers, log lines, and X-Ray traces
        if `props.tracing`. For each hour with requests: custom metrics. Nothing while idle.

    Permissions:
        The function invokes models through endpoints with the owner's tag, and the base model. It reads the
        route, which is one item of the table, and heads of the owner's releases. Callers need
        `execute-api:Invoke` on the API, or `lambda:InvokeFunction` on the alias.

    Delete:
        Function, alias, API and logs are deleted. Releases, their models and deployments stay.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        release: Release | ReleaseReference,
        props: RouterProps = DEFAULT_PROPS,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare function, alias and API.

        Args:
            release: whose route it follows: a `Release`, or what identifies one of another app.
            props: base model, time budgets, caches and limits.
            hosting: VPC, key and log retention.
        """
        super().__init__(scope, construct_id)
        self._props, self._hosting = props, hosting
        heads = None if release.heads is None or release.heads.props.is_off else release.heads
        permissions = _permissions(release, props.base_model)
        if heads:
            permissions += _reading_heads(self, release.owner, heads)
        self.role = may.function_role(self, "Role", permissions)
        self.function = self._function(_variables(release, props, heads))
        self.alias = lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version)
        self.api = self._api(release.owner)

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
            throttle=gateway.ThrottleSettings(
                rate_limit=props.throttle_rate, burst_limit=props.throttle_burst
            ),
            access_log_settings=AccessLogs(self._hosting.log_group(self, "ApiLogs", vended_by="apigateway")),
        )
        resource = stage.node.default_child
        assert isinstance(resource, gateway.CfnStage)
        # Without detailed metrics, which CloudWatch bills for each route (API Gateway developer guide,
        # http-api-metrics).
        resource.route_settings = {
            f"POST {BATCH_PATH}": {
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
    release: Release | ReleaseReference, props: RouterProps, heads: HeadSource | None
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
        owner=release.owner,
        table_name=release.table.table_name,
        base_prices=_token_prices(props.base_model),
        student_prices=_token_prices(release.student),
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


def _permissions(release: Release | ReleaseReference, base_model: str) -> list[may.Permission]:
    owner, table = release.owner, release.table
    # Also of the kind before a change of `endpoint.kind`: the route has it until a new release is live.
    return [
        may.invoke_endpoints(owner),
        *may.invoke(base_model),
        may.Permission(
            ["dynamodb:GetItem"],
            [table.table_arn],
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [item_key(owner, ROUTE)]}},
        ),
        *_decrypting(release.key or table.encryption_key, release.model_key),
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
