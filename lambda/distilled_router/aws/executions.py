"""Find, start and stop executions of this package's state machines by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code, or_none

OPEN = frozenset({"RUNNING", "PENDING_REDRIVE"})
# The error of an execution that this package stopped because its work is no longer needed.
SUPERSEDED = "Superseded"
# The errors for an execution that does not exist, or is closed already; and for an ARN in the releases table
# that a person damaged.
_UNKNOWN = frozenset({"ExecutionDoesNotExist", "InvalidArn", "ValidationException"})
# A closed execution's name is taken for 90 days (Step Functions, StartExecution).
MOST_NAMES = 50


def arn_of(machine: str, name: str) -> str:
    """Return the ARN of a state machine's execution of that name."""
    return f"{machine.replace(':stateMachine:', ':execution:')}:{name}"


def find(stepfunctions: Any, arn: str) -> dict[str, Any] | None:
    """Return DescribeExecution's response, or None if there is no such execution."""
    if not arn:
        return None
    try:
        return or_none(stepfunctions.describe_execution, executionArn=arn)
    except ClientError as error:
        if code(error) in _UNKNOWN:
            return None
        raise


def is_open(execution: Mapping[str, Any] | None) -> bool:
    """Return whether an execution, as DescribeExecution shows it, runs or waits to be redriven."""
    return execution is not None and execution["status"] in OPEN


def stop(stepfunctions: Any, arn: str, cause: str) -> bool:
    """Stop an execution if it runs. Return whether it is closed; call again until it is."""
    execution = find(stepfunctions, arn)
    if not arn or (execution and not is_open(execution)):
        return True
    try:
        # Also if it was not found: it may have been started a moment ago.
        stepfunctions.stop_execution(executionArn=arn, error=SUPERSEDED, cause=cause)
    except ClientError as error:
        if code(error) not in _UNKNOWN:
            raise
        # Not found twice; or it closed between the two calls, and the next call returns True.
        return execution is None
    return False


def of_work(stepfunctions: Any, machine: str, work: str) -> Iterator[dict[str, Any]]:
    """Yield the executions for one piece of work, `<work>-1` and so on, first to last."""
    for number in range(1, MOST_NAMES + 1):
        execution = find(stepfunctions, arn_of(machine, f"{work}-{number}"))
        if execution is None:
            return
        yield execution


def ensure(stepfunctions: Any, machine: str, work: str, content: str) -> str:
    """Return the ARN of the work's open execution, or start one with this input.

    Never starts two at once: every caller tries the same names in the same order, and stops at the name of
    an open execution. Raises ResourceError if every name is used up.
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
        f"{work} was started {MOST_NAMES} times at {machine} within 90 days, and its names can't be reused "
        "before then. Change a setting that decides its digest, such as distillation.nonce."
    )
