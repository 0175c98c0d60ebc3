"""What `make cost` counts is what the templates declare."""

from __future__ import annotations

from stacks.costs import deployed
from tests.stacks.assembly import Assembly
from tests.stacks.test_operations_stack import watched


def test_counts_of_the_month_are_those_of_the_templates(assembly: Assembly) -> None:
    found = deployed(assembly.settings)
    alarms = assembly.resources("AWS::CloudWatch::Alarm")
    # A metric-math alarm is billed for each of its metrics.
    assert found.alarms == sum(len(watched(alarm.properties)) for alarm in alarms)
    assert found.dashboards == len(assembly.resources("AWS::CloudWatch::Dashboard"))
    assert found.keys == len(assembly.resources("AWS::KMS::Key"))
    endpoints = [
        endpoint.properties
        for endpoint in assembly.resources("AWS::EC2::VPCEndpoint")
        if endpoint.properties["VpcEndpointType"] == "Interface"
    ]
    assert found.interface_endpoints == sum(len(endpoint["SubnetIds"]) for endpoint in endpoints)


def test_api_has_no_metrics_of_each_route(assembly: Assembly) -> None:
    """They are billed as metrics of our own, and nothing reads them."""
    stage = assembly.one("AWS::ApiGatewayV2::Stage").properties
    limits = [stage["DefaultRouteSettings"], *stage["RouteSettings"].values()]
    assert not any(limit.get("DetailedMetricsEnabled") for limit in limits)


def test_function_is_as_the_month_counts_it(assembly: Assembly) -> None:
    function = assembly.one("AWS::Lambda::Function", "RouterFunction").properties
    assert function["MemorySize"] == assembly.settings.router.memory_mb
    assert function["Architectures"] == ["arm64"]
    assert ("TracingConfig" in function) == assembly.settings.router.tracing
    # Each custom metric, bucket and table is otherwise billed by use.
    (table,) = {each.properties["BillingMode"] for each in assembly.resources("AWS::DynamoDB::Table")}
    assert table == "PAY_PER_REQUEST"
