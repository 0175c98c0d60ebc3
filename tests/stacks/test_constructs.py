"""Arguments that constructs refuse at synthesis."""

from __future__ import annotations

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.release.wait import windows


@pytest.fixture
def stack() -> cdk.Stack:
    return cdk.Stack(cdk.App(), "test")


@pytest.fixture
def role(stack: cdk.Stack) -> iam.Role:
    return iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))


def function(stack: cdk.Stack, name: str) -> lambda_.Function:
    code = lambda_.Code.from_inline("handler = print")
    return lambda_.Function(
        stack, name, runtime=lambda_.Runtime.PYTHON_3_13, handler="index.handler", code=code
    )


@pytest.mark.parametrize(
    ("total", "interval", "problem"),
    [
        (cdk.Duration.hours(1), cdk.Duration.seconds(5), "hour"),
        (cdk.Duration.hours(3), cdk.Duration.seconds(5), "hour"),
        (cdk.Duration.minutes(10), cdk.Duration.seconds(7), "query_interval"),
    ],
)
def test_provider_refuses_times_that_cloudformation_would_not_wait(
    stack: cdk.Stack, total: cdk.Duration, interval: cdk.Duration, problem: str
) -> None:
    """Case C8."""
    on_event, is_complete = function(stack, "OnEvent"), function(stack, "IsComplete")
    with pytest.raises(ValueError, match=problem):
        ResourceProvider(
            stack,
            "Provider",
            on_event=on_event,
            is_complete=is_complete,
            hosting=Hosting(log_days=7),
            total_timeout=total,
            query_interval=interval,
        )


def test_provider_takes_times_below_the_hour(stack: cdk.Stack) -> None:
    """Case C8."""
    ResourceProvider(
        stack,
        "Provider",
        on_event=function(stack, "OnEvent"),
        is_complete=function(stack, "IsComplete"),
        hosting=Hosting(log_days=7),
        total_timeout=cdk.Duration.minutes(30),
        query_interval=cdk.Duration.seconds(10),
    )


@pytest.mark.parametrize("resource", ["*", "arn:aws:s3:::bucket/*"])
def test_wildcard_needs_a_reason(role: iam.Role, resource: str) -> None:
    with pytest.raises(ValueError, match=r"test/Role.*needs a reason"):
        may.grant(role, [may.Permission(["s3:GetObject"], [resource])])


def test_wildcard_with_a_reason_and_resource_without_one_are_granted(role: iam.Role) -> None:
    reason = "Each release has a folder of its own digest in this bucket."
    may.grant(
        role,
        [
            may.Permission(["s3:GetObject"], ["arn:aws:s3:::bucket/one"]),
            may.Permission(["s3:GetObject"], ["arn:aws:s3:::bucket/releases/*"], because=reason),
        ],
    )


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0.25, [900]), (12, [43_200]), (30, [43_200, 43_200, 21_600]), (0.0001, [1])],
)
def test_windows_are_as_few_as_there_can_be(hours: float, expected: list[int]) -> None:
    assert windows(hours) == expected
