"""Stages of a state machine: a function is asked until it no longer says `waiting` (see `shared.stages`)."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from stacks.nag import acknowledge, function_versions


def stage(
    scope: Construct,
    name: str,
    function: lambda_.Function,
    payload: Mapping[str, object],
    *,
    done: sfn.IChainable,
    failed: sfn.IChainable,
    broken: sfn.IChainable,
) -> sfn.IChainable:
    """Ask a function until its outcome is `done` or `failed`; `broken` follows an error that nobody expected.

    The answer is in `$.stage`, the error in `$.error`.
    """
    asked = task(scope, name, function, payload, "$.stage")
    asked.add_catch(broken, result_path="$.error")
    wait = sfn.Wait(scope, f"{name}: wait", time=sfn.WaitTime.seconds_path("$.stage.seconds"))
    choice = (
        sfn.Choice(scope, f"{name}: outcome")
        .when(sfn.Condition.string_equals("$.stage.outcome", "waiting"), wait.next(asked))
        .when(sfn.Condition.string_equals("$.stage.outcome", "done"), done)
        .otherwise(failed)
    )
    return asked.next(choice)


def task(
    scope: Construct, name: str, function: lambda_.Function, payload: Mapping[str, object], result_path: str
) -> tasks.LambdaInvoke:
    """Invoke a function, again where it or the call broke.

    Whatever it was (a throttled call, a lost connection, no free concurrency), a stage may be asked again:
    each looks at what is there before it does anything.
    """
    invoked = tasks.LambdaInvoke(
        scope,
        name,
        lambda_function=function,
        payload=sfn.TaskInput.from_object(dict(payload)),
        payload_response_only=True,
        result_path=result_path,
    )
    for error in ("Lambda.TooManyRequestsException", "States.TaskFailed"):
        invoked.add_retry(
            errors=[error],
            interval=cdk.Duration.seconds(5),
            max_attempts=4,
            jitter_strategy=sfn.JitterType.FULL,
        )
    return invoked


def accept_wildcards(role: iam.IRole, *functions: lambda_.Function) -> None:
    """Accept what a state machine's role has to have a wildcard for."""
    for function in functions:
        reason = "The state machine invokes this one function, whichever version it has."
        acknowledge(role, f"IAM5[Resource::{function_versions(function)}]", reason)
    acknowledge(role, "IAM5[Resource::*]", "Log deliveries and traces have no resource of their own to name.")
