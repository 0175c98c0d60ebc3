"""Limits of Step Functions that MiniStack does not have (Step Functions quotas).

- The input and the output of a state or of an execution are at most 262,144 bytes. That includes the results
  of a distributed map, also if the state then discards them (aws-cdk issue 24799). The execution ends with
  States.DataLimitExceeded, which no Catch sees.
- The history of an execution has at most 25,000 events; the execution ends at the last one.

A child of a distributed map that ends by a limit fails like any other child, so the map's Catch sees it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ministack.services import stepfunctions

LARGEST_BYTES = 262_144
MOST_EVENTS = 25_000
# Events of a state: entered, exited. Events of each try of a task: scheduled, started, and its end.
STATE_EVENTS, TRY_EVENTS = 2, 3

_EVENTS = "HistoryEvents"
_STATES = ("pass", "task", "choice", "wait", "parallel", "map")


class LimitError(BaseException):
    """A limit ends the execution. MiniStack's Catch takes every Exception, hence the base class."""

    def __init__(self, error: str, cause: str) -> None:
        """Keep the execution's error and cause."""
        super().__init__(error, cause)
        self.error = error
        self.cause = cause


def install() -> None:
    """Replace functions of MiniStack's Step Functions."""
    for name in _STATES:
        attribute = f"_execute_{name}"
        setattr(stepfunctions, attribute, _limited(getattr(stepfunctions, attribute)))
    stepfunctions._apply_result_selector = _checked(stepfunctions._apply_result_selector)
    stepfunctions._run_sub_machine = _child(stepfunctions._run_sub_machine)
    stepfunctions._run_execution = _execution(stepfunctions._run_execution)


def _limited(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that executes a state, checks its input and output, and counts its events."""

    def executed(state: Any, given: Any, *others: Any) -> Any:
        execution, ctx = others if len(others) == 2 else (None, others[0])
        _check_size(given, f"the input of {ctx['State']['Name']}")
        before = len(execution["events"]) if execution else 0
        output, following = execute(state, given, *others)
        # MiniStack adds two events for each try of a task.
        tries = (len(execution["events"]) - before) // 2 if execution and state["Type"] == "Task" else 0
        _count(ctx, STATE_EVENTS + TRY_EVENTS * tries)
        _check_size(output, f"the output of {ctx['State']['Name']}")
        return output, following

    return executed


def _checked(select: Callable[..., Any]) -> Callable[..., Any]:
    """Return a ResultSelector that checks the size of the result, before it is used or discarded."""

    def selected(state: Any, result: Any) -> Any:
        _check_size(result, "a state's result")
        return select(state, result)

    return selected


def _child(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs a map's child, which has a history of its own."""

    def child(states: Any, start: Any, given: Any, execution: Any, ctx: Any) -> Any:
        ctx[_EVENTS] = 0
        try:
            return run(states, start, given, execution, ctx)
        except LimitError as limit:
            raise stepfunctions._ExecutionError(limit.error, limit.cause) from limit

    return child


def _execution(run: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that runs an execution, and fails it if a limit ends it."""

    def executed(arn: str) -> None:
        try:
            run(arn)
        except LimitError as limit:
            stepfunctions._fail_execution(stepfunctions._executions[arn], limit.error, limit.cause)

    return executed


def _count(ctx: dict[str, Any], events: int) -> None:
    ctx[_EVENTS] = ctx.get(_EVENTS, 0) + events
    if ctx[_EVENTS] > MOST_EVENTS:
        raise LimitError(
            "States.Runtime", f"The execution reached the maximum number of history events ({MOST_EVENTS})."
        )


def _check_size(data: Any, what: str) -> None:
    size = len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())
    if size > LARGEST_BYTES:
        raise LimitError(
            "States.DataLimitExceeded",
            f"The size of {what} is {size} bytes, which exceeds the maximum of {LARGEST_BYTES} bytes.",
        )
