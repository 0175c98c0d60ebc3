"""Stages of a state machine: invoke a function until it no longer answers `waiting`.

`distilled_router.aws.state_machine` is the functions' side of this.
"""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from cdk_distilled_router.common.nag import acknowledge, acknowledge_resource, function_versions
from cdk_distilled_router.common.permissions import OF_ONE_ROLE


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
    """Return states that invoke a function until its outcome is `done` or `failed`.

    `broken` handles unexpected errors. The answer is in `$.stage`, an error in `$.error`.
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


def each_shard(
    scope: Construct,
    name: str,
    function: lambda_.Function,
    payload: Mapping[str, object],
    *,
    label: str,
    bucket: s3.IBucket,
    folder: str,
    concurrency: int,
    broken: sfn.IChainable,
) -> sfn.DistributedMap:
    """Return a distributed map that runs a stage for every object in a folder, `concurrency` at a time.

    The function gets `payload`, read from the state's input, and the object's key as `shard`. The result of
    each shard, `{"outcome", "message"}`, goes into `$.shards` for the next state; a failed shard doesn't stop
    others. `label` is part of the children's names, see `accept_children`.
    """
    outcome = sfn.Pass(
        scope,
        f"{name}: result",
        parameters={
            "outcome": sfn.JsonPath.string_at("$.stage.outcome"),
            "message": sfn.JsonPath.string_at("$.stage.message"),
        },
    )
    failed = sfn.Pass(
        scope,
        f"{name}: error",
        parameters={"outcome": "failed", "message": sfn.JsonPath.string_at("$.error.Cause")},
    )
    key = sfn.JsonPath.string_at("$$.Map.Item.Value.Key")
    shards = sfn.DistributedMap(
        scope,
        f"{name}: each shard",
        label=label,
        map_execution_type=sfn.StateMachineType.STANDARD,
        max_concurrency=concurrency,
        item_reader=sfn.S3ObjectsItemReader(bucket=bucket, prefix=folder),
        item_selector={"shard": key, **payload},
        result_path="$.shards",
    )
    taken: dict[str, object] = {field: sfn.JsonPath.object_at(f"$.{field}") for field in ("shard", *payload)}
    shards.item_processor(stage(scope, name, function, taken, done=outcome, failed=outcome, broken=failed))
    shards.add_catch(broken, result_path="$.error")
    return shards


def accept_children(machine: sfn.StateMachine, label: str) -> None:
    """Acknowledge the wildcards in the CDK's policy for a distributed map's child executions."""
    policy = machine.node.find_child("DistributedMapPolicy")
    assert isinstance(policy, Construct)
    acknowledge(policy, "IAMNoInlinePolicy", OF_ONE_ROLE)
    name = cdk.Fn.select(6, cdk.Fn.split(":", machine.state_machine_arn))
    for children in (name, f"{name}/{label}"):
        arn = cdk.Stack.of(machine).format_arn(
            service="states",
            resource="execution",
            resource_name=f"{children}:*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        reason = "Step Functions chooses the names of a distributed map's child executions."
        acknowledge_resource(policy, arn, reason)


def task(
    scope: Construct, name: str, function: lambda_.Function, payload: Mapping[str, object], result_path: str
) -> tasks.LambdaInvoke:
    """Return a state that invokes a function, and retries if the call or the function fails.

    Retries are safe after any error, such as throttling or a lost connection: stages are idempotent.
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
    """Acknowledge the inline policy of a state machine's role, and the wildcards in it."""
    for function in functions:
        reason = "The state machine invokes this one function; the CDK grants all its versions."
        acknowledge(role, f"IAM5[Resource::{function_versions(function)}]", reason)
    acknowledge(
        role, "IAM5[Resource::*]", "The actions for log deliveries and traces don't support resources."
    )
    acknowledge(role, "IAMNoInlinePolicy", OF_ONE_ROLE)
