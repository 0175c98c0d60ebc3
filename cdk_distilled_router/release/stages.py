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
from cdk_distilled_router.common.retries import OF_FUNCTION, retry


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

    The function gets `payload`, and as `since` the time at which the stage began. `broken` handles unexpected
    errors. The answer is in `$.stage`, an error in `$.error`.
    """
    begun = sfn.Pass(
        scope,
        f"{name}: begin",
        parameters={"at": sfn.JsonPath.string_at("$$.State.EnteredTime")},
        result_path="$.begun",
    )
    since = {"since": sfn.JsonPath.string_at("$.begun.at")}
    asked = task(scope, name, function, {**payload, **since}, "$.stage")
    asked.add_catch(broken, result_path="$.error")
    wait = sfn.Wait(scope, f"{name}: wait", time=sfn.WaitTime.seconds_path("$.stage.seconds"))
    choice = (
        sfn.Choice(scope, f"{name}: outcome")
        .when(sfn.Condition.string_equals("$.stage.outcome", "waiting"), wait.next(asked))
        .when(sfn.Condition.string_equals("$.stage.outcome", "done"), done)
        .otherwise(failed)
    )
    return begun.next(asked).next(choice)


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

    The function gets `payload`, read from the state's input, and the object's key as `shard`. A failed shard
    doesn't stop others. Shards have no results: those of thousands would not fit into a state, which holds
    262,144 bytes (Step Functions quotas) also if it discards them (aws-cdk issue 24799). So the function
    keeps each outcome, and the next step reads it there. `label` is part of the children's names, see
    `accept_children`.
    """
    ended = sfn.Pass(scope, f"{name}: result", result=sfn.Result.from_object({}))
    key = sfn.JsonPath.string_at("$$.Map.Item.Value.Key")
    shards = sfn.DistributedMap(
        scope,
        f"{name}: each shard",
        label=label,
        map_execution_type=sfn.StateMachineType.STANDARD,
        max_concurrency=concurrency,
        item_reader=sfn.S3ObjectsItemReader(bucket=bucket, prefix=folder),
        item_selector={"shard": key, **payload},
        result_path=sfn.JsonPath.DISCARD,
    )
    taken: dict[str, object] = {field: sfn.JsonPath.object_at(f"$.{field}") for field in ("shard", *payload)}
    shards.item_processor(stage(scope, name, function, taken, done=ended, failed=ended, broken=ended))
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
    """Return a state that invokes a function, with retries."""
    invoked = tasks.LambdaInvoke(
        scope,
        name,
        lambda_function=function,
        payload=sfn.TaskInput.from_object(dict(payload)),
        payload_response_only=True,
        result_path=result_path,
        retry_on_service_exceptions=False,
    )
    retry(invoked, *OF_FUNCTION)
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
