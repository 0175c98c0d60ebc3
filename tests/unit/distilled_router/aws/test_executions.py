"""Executions of our state machines, on the emulator's Step Functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws import executions
from distilled_router.aws.errors import ResourceError

_numbers = count(1)


@pytest.fixture
def stepfunctions(aws: Callable[[str], Any]) -> Any:
    return aws("stepfunctions")


@pytest.fixture
def machine(stepfunctions: Any) -> str:
    """A state machine whose executions go on until they are stopped."""
    states = {"Only": {"Type": "Wait", "Seconds": 100_000, "End": True}}
    made = stepfunctions.create_state_machine(
        name=f"work-{next(_numbers)}",
        definition=json.dumps({"StartAt": "Only", "States": states}),
        roleArn="arn:aws:iam::000000000000:role/machine",
    )
    return str(made["stateMachineArn"])


def running(stepfunctions: Any, machine: str) -> list[str]:
    found = stepfunctions.list_executions(stateMachineArn=machine, statusFilter="RUNNING")
    return [item["name"] for item in found["executions"]]


def test_work_is_started_once(stepfunctions: Any, machine: str) -> None:
    first = executions.ensure(stepfunctions, machine, "w", "{}")
    assert executions.ensure(stepfunctions, machine, "w", "{}") == first
    assert running(stepfunctions, machine) == ["w-1"]


def test_work_that_runs_is_not_started_with_another_input(stepfunctions: Any, machine: str) -> None:
    """AWS refuses the name then; what runs is found all the same."""
    first = executions.ensure(stepfunctions, machine, "w", "{}")
    refusal = ClientError({"Error": {"Code": "ExecutionAlreadyExists", "Message": "w-1"}}, "StartExecution")
    refusing = Mock(wraps=stepfunctions, start_execution=Mock(side_effect=refusal))
    assert executions.ensure(refusing, machine, "w", '{"other": 1}') == first


def test_work_that_was_stopped_is_started_under_the_next_name(stepfunctions: Any, machine: str) -> None:
    first = executions.ensure(stepfunctions, machine, "w", "{}")
    assert not executions.stop(stepfunctions, first, "enough")
    assert executions.stop(stepfunctions, first, "enough")
    second = executions.ensure(stepfunctions, machine, "w", "{}")
    assert second.endswith(":w-2")
    found = list(executions.of_work(stepfunctions, machine, "w"))
    assert [(item["name"], item["status"]) for item in found] == [("w-1", "ABORTED"), ("w-2", "RUNNING")]


def test_other_work_is_not_taken_for_it(stepfunctions: Any, machine: str) -> None:
    executions.ensure(stepfunctions, machine, "w", "{}")
    executions.ensure(stepfunctions, machine, "w-1", "{}")
    assert [item["name"] for item in executions.of_work(stepfunctions, machine, "w")] == ["w-1"]


def test_names_that_are_used_up_are_told(
    stepfunctions: Any, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "MOST_NAMES", 2)
    for _ in range(2):
        arn = executions.ensure(stepfunctions, machine, "w", "{}")
        executions.stop(stepfunctions, arn, "enough")
    with pytest.raises(ResourceError, match="started 2 times"):
        executions.ensure(stepfunctions, machine, "w", "{}")


def test_refused_start_is_raised(stepfunctions: Any, machine: str) -> None:
    with pytest.raises(ClientError, match="StateMachineDoesNotExist"):
        executions.ensure(stepfunctions, f"{machine}-gone", "w", "{}")


def test_execution_that_is_not_found_yet_is_stopped(stepfunctions: Any, machine: str) -> None:
    """Step Functions' reads lag behind StartExecution."""
    arn = executions.ensure(stepfunctions, machine, "w", "{}")
    missing = ClientError({"Error": {"Code": "ExecutionDoesNotExist", "Message": arn}}, "DescribeExecution")
    late = Mock(wraps=stepfunctions, describe_execution=Mock(side_effect=missing))
    assert not executions.stop(late, arn, "enough")
    assert running(stepfunctions, machine) == []


@pytest.mark.parametrize("name", ["w-1", "text"])
def test_execution_that_does_not_exist_is_closed(stepfunctions: Any, machine: str, name: str) -> None:
    arn = executions.arn_of(machine, name) if name == "w-1" else name
    assert executions.stop(stepfunctions, arn, "enough")
    assert executions.stop(stepfunctions, "", "enough")
