"""What examples/constructs declares for AWS; `tests/engine/test_constructs_alone.py` deploys it."""

from __future__ import annotations

import runpy
from typing import Any

import aws_cdk as cdk
from aws_cdk.assertions import Template

from stacks.settings import PROJECT


def test_its_stack_has_the_four_constructs_and_the_waits_of_aws() -> None:
    app: dict[str, Any] = runpy.run_path(str(PROJECT / "examples" / "constructs" / "app.py"))
    stack = app["TicketsStack"](cdk.App(analytics_reporting=False), "tickets-router")
    template = Template.from_stack(stack).to_json()["Resources"].values()

    types = {resource["Type"] for resource in template}
    custom = {f"Custom::Bedrock{name}" for name in ("Dataset", "DistillationJob", "Release")}
    assert {*custom, "AWS::ApiGatewayV2::Api", "AWS::S3::Bucket"} <= types
    functions = [each["Properties"] for each in template if each["Type"] == "AWS::Lambda::Function"]
    variables = [each.get("Environment", {}).get("Variables", {}) for each in functions]
    assert {found["ABSENCE_SECONDS"] for found in variables if "ABSENCE_SECONDS" in found} == {"60"}
    assert {found["POLL_SECONDS"] for found in variables if "POLL_SECONDS" in found} == {"300"}
