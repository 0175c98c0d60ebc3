"""Acknowledged findings of a function: only for properties that it doesn't have."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs

from cdk_distilled_router.common.callers import MACHINE, SCHEDULE, accept
from cdk_distilled_router.common.nag import ids


@pytest.fixture
def stack() -> cdk.Stack:
    return cdk.Stack(cdk.App(), "test")


def function(stack: cdk.Stack, **more: Any) -> lambda_.Function:
    code = lambda_.Code.from_inline("handler = print")
    runtime = lambda_.Runtime.PYTHON_3_13
    return lambda_.Function(stack, "Function", runtime=runtime, handler="index.handler", code=code, **more)


def accepted(function: lambda_.Function) -> set[str]:
    """Return the rules that are acknowledged at a function."""
    entries = [entry for entry in function.node.metadata if entry.type == "aws:cdk:acknowledged-rules"]
    return {rule for entry in entries for rule in entry.data}


def test_missing_properties_of_a_function_are_acknowledged_in_all_rule_sets(stack: cdk.Stack) -> None:
    bare = function(stack)
    accept(bare, MACHINE)
    matters = ("LambdaDLQ", "LambdaConcurrency", "LambdaTracing", "LambdaInsideVPC", "LambdaEnvironmentKey")
    assert accepted(bare) == {rule for matter in matters for rule in ids(matter)}


@pytest.mark.parametrize(
    ("more", "matter"),
    [
        ({"dead_letter_queue_enabled": True}, "LambdaDLQ"),
        ({"reserved_concurrent_executions": 5}, "LambdaConcurrency"),
        ({"tracing": lambda_.Tracing.ACTIVE}, "LambdaTracing"),
    ],
)
def test_properties_that_it_has_are_not_acknowledged(
    stack: cdk.Stack, more: dict[str, Any], matter: str
) -> None:
    equipped = function(stack, **more)
    accept(equipped, MACHINE)
    assert accepted(equipped)
    assert not accepted(equipped) & set(ids(matter))


def test_asynchronous_function_needs_a_queue(stack: cdk.Stack) -> None:
    with pytest.raises(ValueError, match=r"test/Function.*set dead_letters to a queue"):
        accept(function(stack), SCHEDULE)
    other = cdk.Stack(cdk.App(), "other")
    accept(function(other, dead_letter_queue=sqs.Queue(other, "Queue")), SCHEDULE)
