"""Executions of our state machines: found by their names, started once, stopped for good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code, or_none

OPEN = frozenset({"RUNNING", "PENDING_REDRIVE"})
# The error of an execution that we stopped ourselves: nobody wants its work any more.
SUPERSEDED = "Superseded"
# A closed execution's name is taken for 90 days (Step Functions, StartExecution).
MOST_NAMES = 50


def arn_of(machine: str, name: str) -> str:
    """The ARN of a state machine's execution of that name."""
    return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"


def find(stepfunctions: Any, arn: str) -> dict[str, Any] | None:
    """DescribeExecution's answer, or None where there is no such execution."""
    if not arn:
        return None
    try:
        return or_none(stepfunctions.describe_execution, executionArn=arn)
    except stepfunctions.exceptions.ExecutionDoesNotExist:
        return None


def is_open(execution: Mapping[str, Any] | None) -> bool:
    """Whether an execution, as DescribeExecution shows it, runs or can be run on."""
    return execution is not None and execution["status"] in OPEN


def stop(stepfunctions: Any, arn: str, cause: str) -> bool:
    """Stop an execution if it runs; True once it is closed. Call again until then."""
    execution = find(stepfunctions, arn)
    if not is_open(execution):
        return True
    try:
        stepfunctions.stop_execution(executionArn=arn, error=SUPERSEDED, cause=cause)
    except ClientError as error:
        # It closed between the look and the call: the next look tells.
        if code(error) not in {"ValidationException", "ExecutionDoesNotExist"}:
            raise
    return False


def of_work(stepfunctions: Any, machine: str, work: str) -> Iterator[dict[str, Any]]:
    """The executions of one piece of work, `<work>-1` and so on, first to last."""
    for number in range(1, MOST_NAMES + 1):
        execution = find(stepfunctions, arn_of(machine, f"{work}-{number}"))
        if execution is None:
            return
        yield execution


def ensure(stepfunctions: Any, machine: str, work: str, content: str) -> str:
    """The ARN of the work's execution that runs, or of a new one with this input.

    Never two at once: whoever asks tries the same names in the same order, and an open execution's name
    stands in the way of all that come after it. Raises ResourceError where every name is used up.
    """
    for number in range(1, MOST_NAMES + 1):
        name = f"{work}-{number}"
        try:
            return str(
                stepfunctions.start_execution(stateMachineArn=machine, name=name, input=content)[
                    "executionArn"
                ]
            )
        except ClientError as error:
            if code(error) != "ExecutionAlreadyExists":
                raise
        if is_open(find(stepfunctions, arn_of(machine, name))):
            return arn_of(machine, name)
    raise ResourceError(
        f"{work} was started {MOST_NAMES} times at {machine} within 90 days, and names can't be used again "
        "before. Change what it is made of, such as distillation.nonce."
    )
