"""Who invokes a function, and why it therefore needs no queue, reservation or trace."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_lambda as lambda_

from cdk_distilled_router.common.nag import acknowledge


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Reasons why a function with this caller has no dead-letter queue, reserved concurrency or trace.

    `no_queue` is empty for an asynchronous caller, whose function needs a queue.
    """

    no_queue: str
    no_reservation: str
    no_trace: str


CLOUDFORMATION = Caller(
    no_queue="CloudFormation waits for the answer and fails the resource without one. A queue would store "
    "the event's URL, which allows anyone to answer.",
    no_reservation="CloudFormation sends it one event for a changed resource; a reservation would "
    "permanently take concurrency from the account's other functions.",
    no_trace="It forwards a few events in a deployment; the stack's events have the results.",
)
"""Caller of the Provider framework's onEvent function."""

WAITER = Caller(
    no_queue="The framework's state machine waits for the answer and reports its last error to "
    "CloudFormation, so no event is lost.",
    no_reservation="The framework's state machine polls it, one call at a time, while a resource changes; a "
    "reservation would permanently take concurrency from the account's other functions.",
    no_trace="It polls a handler; the state machine's log has each poll.",
)
"""Caller of the Provider framework's isComplete and onTimeout functions."""

FRAMEWORK = Caller(
    no_queue="The Provider framework waits for the answer, and an error fails the custom resource, so no "
    "event is lost.",
    no_reservation="The Provider framework makes one call at a time while a resource changes; a reservation "
    "would permanently take concurrency from the account's other functions.",
    no_trace="It runs a few times in a deployment; its log and the stack's events have the results.",
)
"""Caller of a custom resource's handler."""

MACHINE = Caller(
    no_queue="The state machine waits for the answer, retries, and then takes its failure path, so no event "
    "is lost.",
    no_reservation="The state machine limits its concurrency; a reservation would take concurrency from the "
    "account's other functions even between releases.",
    no_trace="The state machine is traced; its trace has each call's time and error.",
)
"""Caller of a step of our state machines."""

SCHEDULE = Caller(
    no_queue="",
    no_reservation="EventBridge invokes it every few minutes or hours, so it hardly ever runs twice at the "
    "same time; a reservation would take concurrency from the account's other functions.",
    no_trace="It cleans up in the background; its log has what it found and did.",
)
"""EventBridge, which invokes asynchronously."""

REQUESTS = Caller(
    no_queue="The client waits for the answer and can retry; an answer an hour later is of no use.",
    no_reservation="The API's throttles (router.throttle_rate, batch_throttle_rate) limit its requests; "
    "router.reserved_concurrency also limits direct invocations, if the account has enough concurrency.",
    no_trace="router.tracing is off in these settings; the API's access log has each request's latency.",
)
"""Clients of the API, or of the function itself."""


def accept(function: lambda_.Function, caller: Caller) -> None:
    """Acknowledge the findings about a function for which its caller gives the reason.

    Raises:
        ValueError: the function is invoked asynchronously and has no dead-letter queue.
    """
    resource = function.node.default_child
    assert isinstance(resource, lambda_.CfnFunction)
    if resource.dead_letter_config is None:
        if not caller.no_queue:
            raise ValueError(
                f"{function.node.path}: it is invoked asynchronously; set dead_letters to a queue"
            )
        acknowledge(function, "LambdaDLQ", caller.no_queue)
    if resource.reserved_concurrent_executions is None:
        acknowledge(function, "LambdaConcurrency", caller.no_reservation)
    if resource.tracing_config is None:
        acknowledge(function, "LambdaTracing", caller.no_trace)
    if resource.vpc_config is None:
        acknowledge(
            function,
            "LambdaInsideVPC",
            "It only calls AWS APIs, over TLS, and accepts no connections; [network] in the settings puts it "
            "into private subnets.",
        )
    if resource.kms_key_arn is None:
        acknowledge(
            function,
            "LambdaEnvironmentKey",
            "Its variables are names and numbers, not secrets, and Lambda encrypts them with an AWS key; "
            "encryption.runtime_key encrypts them with the stacks' key.",
        )
