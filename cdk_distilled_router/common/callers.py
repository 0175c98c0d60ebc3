"""Who invokes a function, and what the checks ask of every function that one so invoked goes without."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_lambda as lambda_

from cdk_distilled_router.common.nag import acknowledge


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Reasons why a function goes without a queue, a reservation and a trace, by who invokes it.

    `no_queue` is empty where nobody waits for the answer: such a function needs a queue.
    """

    no_queue: str
    no_reservation: str
    no_trace: str


CLOUDFORMATION = Caller(
    no_queue="CloudFormation itself waits for the answer, and the resource fails without it. A queue would "
    "keep the event's URL, with which anybody could answer in its stead.",
    no_reservation="CloudFormation sends it one event for a resource that changes; a reservation would be "
    "taken from the account's other functions all year.",
    no_trace="It passes an event on, a few times in a deployment, whose stack events tell what came of it.",
)
"""Of the CDK's Provider framework: it takes the events."""

WAITER = Caller(
    no_queue="The framework's state machine waits for the answer, and its last error is told to "
    "CloudFormation: no event is lost.",
    no_reservation="The framework's state machine polls it, one call at a time, while a resource changes; a "
    "reservation would be taken from the account's other functions all year.",
    no_trace="It asks a handler whether it is done; the state machine's log has every round of it.",
)
"""Of the CDK's Provider framework: they poll."""

FRAMEWORK = Caller(
    no_queue="The Provider framework waits for the answer, and an error fails the custom resource: no event "
    "is lost.",
    no_reservation="The Provider framework calls it once at a time, while a resource changes; a reservation "
    "would be taken from the account's other functions all year.",
    no_trace="It runs a few times in a deployment; its log and the stack's events tell what it did and why.",
)
"""Of a custom resource."""

MACHINE = Caller(
    no_queue="The state machine waits for the answer, tries again and then takes its failure path: no event "
    "is lost.",
    no_reservation="The state machine's own concurrency limits it; a reservation would be taken from the "
    "account's other functions between releases, too.",
    no_trace="The state machine is traced: each call is in its trace, with time and error.",
)
"""Of a state machine of ours."""

SCHEDULE = Caller(
    no_queue="",
    no_reservation="EventBridge invokes it every few minutes or hours, so that it hardly runs twice at a "
    "time; a reservation would be taken from the account's other functions.",
    no_trace="It tidies up by itself and nobody waits for it; its log tells what it found and did.",
)
"""Of EventBridge."""

REQUESTS = Caller(
    no_queue="Who asks waits for the answer and asks again; a query that failed an hour ago is of no use.",
    no_reservation="The API's throttle (router.throttle_rate) bounds it; router.reserved_concurrency gives "
    "it a limit of its own, in an account that has the room.",
    no_trace="router.tracing is off in these settings; the API's access log tells each request's time.",
)
"""Of the API, and of whoever invokes the function itself."""


def accept(function: lambda_.Function, caller: Caller) -> None:
    """Accept what a function lacks of what the checks ask for.

    Raises ValueError for a function without a queue whose answers nobody waits for.
    """
    resource = function.node.default_child
    assert isinstance(resource, lambda_.CfnFunction)
    if resource.dead_letter_config is None:
        if not caller.no_queue:
            raise ValueError(
                f"{function.node.path}: nobody waits for its answers, so it needs a queue as dead_letters"
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
            "It calls AWS's own APIs over TLS and nothing else, and no network reaches it; the settings' "
            "[network] puts it into private subnets.",
        )
    if resource.kms_key_arn is None:
        acknowledge(
            function,
            "LambdaEnvironmentKey",
            "Its variables are names and figures, no secret, and Lambda encrypts them with a key of its own; "
            "encryption.runtime_key has them encrypted with the stacks' key.",
        )
