"""The router: its permissions, its settings, and access to its API."""

from __future__ import annotations

import json

from distilled_router.cost.prices import Prices
from distilled_router.env import RouterEnv
from tests.stacks.assembly import Assembly
from tests.unit.router.api_document import DOCUMENT


def test_router_may_read_the_route_and_no_other_item(assembly: Assembly) -> None:
    role = assembly.one("AWS::IAM::Role", "RouterRole")
    statements = [
        statement
        for statement in assembly.role_statements(role)
        if any(action.startswith("dynamodb:") for action in statement.actions)
    ]
    (read,) = statements
    assert read.actions == {"dynamodb:GetItem"}
    assert read.resources == {"<Releases.Arn>"}
    assert read.conditions == {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [f"{assembly.settings.owner}/route"]}
    }


def test_router_may_invoke_deployments_and_the_base_model_and_nothing_else_of_bedrock(
    assembly: Assembly,
) -> None:
    settings = assembly.settings
    ours = f"arn:aws:bedrock:{settings.region}:{settings.account}"
    base = settings.router.base_model
    statements = [
        statement
        for statement in assembly.role_statements(assembly.one("AWS::IAM::Role", "RouterRole"))
        if any(action.startswith("bedrock:") for action in statement.actions)
    ]
    assert {action for statement in statements for action in statement.actions} == {"bedrock:InvokeModel"}
    invoked = {resource: statement.conditions for statement in statements for resource in statement.resources}
    profile = f"{ours}:inference-profile/{base}"
    # Both kinds of endpoints: the route can still have the kind of an earlier deployment.
    owned = {"StringEquals": {"aws:ResourceTag/distilled-router:owner": settings.owner}}
    expected = {
        f"{ours}:custom-model-deployment/*": owned,
        f"{ours}:provisioned-model/*": owned,
        profile: {},
        f"arn:aws:bedrock:us-*::foundation-model/{base.removeprefix('us.')}": {
            "StringLike": {"bedrock:InferenceProfileArn": profile}
        },
    }
    assert invoked == expected


def test_every_route_asks_for_iam_authorization(assembly: Assembly) -> None:
    routes = assembly.resources("AWS::ApiGatewayV2::Route")
    documented = {f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item}
    assert {route.properties["RouteKey"] for route in routes} == documented
    assert all(route.properties["AuthorizationType"] == "AWS_IAM" for route in routes)
    assert "CorsConfiguration" not in assembly.one("AWS::ApiGatewayV2::Api").properties


def test_only_this_api_may_call_the_live_alias(assembly: Assembly) -> None:
    permissions = assembly.resources("AWS::Lambda::Permission", stack="router")
    account, region = assembly.settings.account, assembly.settings.region
    assert [assembly.plain(permission.properties) for permission in permissions] == [
        {
            "Action": "lambda:InvokeFunction",
            "FunctionName": "<RouterLive>",
            "Principal": "apigateway.amazonaws.com",
            "SourceArn": f"arn:aws:execute-api:{region}:{account}:<RouterApi>/*/*/{path}",
        }
        for path in ("route", "routes")
    ]
    integration = assembly.one("AWS::ApiGatewayV2::Integration").properties
    assert assembly.plain(integration["IntegrationUri"]) == "<RouterLive>"
    assert integration["TimeoutInMillis"] <= 29_000


def test_each_route_is_throttled_as_the_settings_say(assembly: Assembly) -> None:
    """A batch is one request to API Gateway, so that batches need a throttle of their own."""
    stage, router = assembly.one("AWS::ApiGatewayV2::Stage"), assembly.settings.router
    limits = stage.properties["DefaultRouteSettings"]
    assert limits["ThrottlingRateLimit"] == router.throttle_rate
    assert limits["ThrottlingBurstLimit"] == router.throttle_burst
    assert stage.properties["RouteSettings"] == {
        "POST /routes": {
            "ThrottlingRateLimit": router.batch_throttle_rate,
            "ThrottlingBurstLimit": router.batch_throttle_burst,
        }
    }


def test_stage_is_created_after_the_routes_that_it_throttles(assembly: Assembly) -> None:
    routes = {route.logical_id for route in assembly.resources("AWS::ApiGatewayV2::Route")}
    assert routes <= set(assembly.one("AWS::ApiGatewayV2::Stage").raw["DependsOn"])


def test_function_has_the_concurrency_that_the_settings_reserve(assembly: Assembly) -> None:
    function = assembly.one("AWS::Lambda::Function", "RouterFunction").properties
    reserved = assembly.settings.router.reserved_concurrency
    assert function.get("ReservedConcurrentExecutions") == reserved


def test_access_is_logged_without_the_query(assembly: Assembly) -> None:
    log = assembly.one("AWS::ApiGatewayV2::Stage").properties["AccessLogSettings"]
    assert assembly.plain(log["DestinationArn"]) == "<RouterApiLogs.Arn>"
    fields = json.loads(log["Format"])
    assert fields["requestId"] == "$context.requestId"
    assert {"caller", "status", "latency"} <= fields.keys()
    assert not any("body" in value or "querystring" in value.lower() for value in fields.values())


def _prices(model: str) -> str:
    rate = Prices.load().rate(model)
    return f"{rate.input} {rate.output}"


def test_router_reads_its_settings_from_its_variables(assembly: Assembly) -> None:
    function = assembly.one("AWS::Lambda::Function", "RouterFunction").properties
    read = RouterEnv.read(assembly.plain(function["Environment"]["Variables"]))
    settings = assembly.settings
    assert (read.owner, read.table_name) == (settings.owner, "<Releases>")
    assert read.base_prices == _prices(settings.router.base_model)
    assert read.student_prices == _prices(settings.distillation.student)
    for name in RouterEnv.names().keys() & type(settings.router).model_fields.keys():
        assert getattr(read, name) == getattr(settings.router, name), name
    assert max(read.time_budget_ms, read.batch_time_budget_ms) < function["Timeout"] * 1000


def test_router_is_traced_unless_tracing_is_off(assembly: Assembly) -> None:
    function = assembly.one("AWS::Lambda::Function", "RouterFunction").properties
    role = assembly.one("AWS::IAM::Role", "RouterRole")
    actions = {action for statement in assembly.role_statements(role) for action in statement.actions}
    sends = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    if assembly.settings.router.tracing:
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert sends <= actions
    else:
        assert "TracingConfig" not in function
        assert not sends & actions


def test_queries_are_not_logged_by_default(assembly: Assembly) -> None:
    logged = assembly.one("AWS::Lambda::Function", "RouterFunction").properties["Environment"]["Variables"][
        "LOG_QUERIES"
    ]
    assert logged == ("true" if assembly.environment == "local" else "false")
