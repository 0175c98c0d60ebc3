"""State machines stay within the limits of Step Functions at every allowed setting."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from cdk_distilled_router.labelling_machine import LONGEST
from cdk_distilled_router.props import LabellingProps
from distilled_router.aws.state_machine import MESSAGE_CHARACTERS, pause
from distilled_router.data.query_rules import MOST_QUERIES
from local.servers import EMULATOR_PYTHON
from stacks.settings import PROJECT
from tests.stacks.assembly import Assembly

Assemblies = Mapping[str, Assembly]

LONG = "x" * MESSAGE_CHARACTERS
FAILED = {"outcome": "failed", "message": LONG, "seconds": 0}
DONE = {**FAILED, "outcome": "done"}
WAITING = {**FAILED, "outcome": "waiting", "seconds": 1}
# The longest cause of a failed task (botocore: SensitiveCause).
BROKEN = {"Error": "Sandbox.Timedout", "Cause": "x" * 32_768}
MOST_SHARDS = MOST_QUERIES // LabellingProps.model_fields["queries_per_shard"].metadata[0].ge
# Hold-out rows have no limit of their own; this is ten times the largest training set, in shards of 500.
QUESTION_SHARDS = 300


def ran(definition: Any, answer: Any, given: Any = None, objects: int = 1) -> dict[str, Any]:
    """Return an execution of a state machine whose tasks all get this answer."""
    scene = {"definition": definition, "answer": answer, "input": given or {}, "objects": objects}
    process = subprocess.run(
        [EMULATOR_PYTHON, "local/emulator/machine.py"],
        input=json.dumps(scene),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def machine(assembly: Assembly, name: str) -> Any:
    return assembly.definition(assembly.one("AWS::StepFunctions::StateMachine", name))


def looping(**task: Any) -> Any:
    """Return a definition that calls a function until it stops to answer `waiting`."""
    again = {"Variable": "$.outcome", "StringEquals": "waiting", "Next": "Ask"}
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "End"}]
    return {
        "StartAt": "Ask",
        "States": {
            "Ask": {"Type": "Task", "Resource": "f", "Catch": catch, "Next": "Choose", **task},
            "Choose": {"Type": "Choice", "Choices": [again], "Default": "End"},
            "End": {"Type": "Succeed"},
        },
    }


def test_the_emulators_executions_end_at_25_000_events() -> None:
    ended = ran(looping(), WAITING)
    assert ended["status"] == "FAILED"
    assert "25000" in ended["cause"]
    assert ran(looping(), DONE)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("task", [{}, {"ResultPath": None}], ids=["kept", "discarded"])
def test_the_emulators_states_hold_256_kib_and_nothing_catches_more(task: dict[str, Any]) -> None:
    assert ran(looping(**task), {"outcome": "done", "text": "x" * 262_000})["status"] == "SUCCEEDED"
    ended = ran(looping(**task), {"outcome": "done", "text": "x" * 262_200})
    assert (ended["status"], ended["error"]) == ("FAILED", "States.DataLimitExceeded")


@pytest.mark.parametrize("answer", [DONE, FAILED, BROKEN], ids=["done", "failed", "broken"])
def test_labelling_of_the_most_shards_stays_within_256_kib(assemblies: Assemblies, answer: Any) -> None:
    raw = assemblies["raw-queries"]
    plan = json.loads(raw.one("Custom::BedrockLabelling").properties["Plan"])
    given = {"plan": plan, "claimant": {"stack_id": "s" * 200, "logical_id": "l" * 255}}
    ended = ran(machine(raw, "LabellingStateMachine"), answer, given, MOST_SHARDS)
    assert ended["error"] != "States.DataLimitExceeded", ended["cause"]
    expected = {"done": (None, "SUCCEEDED"), "failed": ("LabellingFailed", "FAILED")}
    outcome = answer.get("outcome", "broken")
    assert (ended["error"], ended["status"]) == expected.get(outcome, ("LabellingBroken", "FAILED"))


@pytest.mark.parametrize("answer", [DONE, FAILED, BROKEN], ids=["done", "failed", "broken"])
def test_evaluation_of_many_shards_stays_within_256_kib(assemblies: Assemblies, answer: Any) -> None:
    release = machine(assemblies["prod"], "ReleaseStateMachine")
    # The steps before it are done, those after it are not of interest.
    asked = {**release, "StartAt": "AskModels: each shard"}
    ended = ran(asked, answer, {"release": "0123456789ab"}, QUESTION_SHARDS)
    assert ended["error"] != "States.DataLimitExceeded", ended["cause"]
    assert ended["status"] == ("SUCCEEDED" if answer is DONE else "FAILED")


def test_the_longest_wait_at_the_shortest_poll_fits_into_a_history() -> None:
    seconds, tries = 0.0, 0
    while seconds < LONGEST.to_seconds():
        seconds, tries = seconds + pause(seconds, 1), tries + 1
    # A round has nine events: the task's five, and those of its Choice and Wait. Half are left for retries.
    assert tries * 9 < 25_000 / 2


def test_every_stage_is_told_since_when_it_waits(assembly: Assembly) -> None:
    states = states_of(assembly)
    for name, state in tasks_of(assembly):
        if f"{name}: wait" in states:
            assert state["Parameters"]["since.$"] == "$.begun.at", name


@pytest.mark.parametrize(
    "error",
    [
        "Lambda.TooManyRequestsException",
        "Lambda.ResourceConflictException",
        "Lambda.ResourceNotReadyException",
        "Lambda.CodeArtifactUserPendingException",
        "Lambda.ENINotReadyException",
        "Lambda.EC2ThrottledException",
        "Lambda.ServiceException",
        "Lambda.SdkClientException",
    ],
)
def test_every_call_of_a_function_outlasts_minutes_in_which_it_can_not_start(
    assembly: Assembly, error: str
) -> None:
    """A new account runs ten functions at once; a function in a VPC is inactive after weeks of rest."""
    called = [(name, state) for name, state in tasks_of(assembly) if "sns" not in str(state["Resource"])]
    assert called
    for name, state in called:
        assert endured(state, error) >= 600, name


def test_every_task_is_retried(assembly: Assembly) -> None:
    for name, state in tasks_of(assembly):
        assert endured(state, "States.TaskFailed") >= 30, name


def states_of(assembly: Assembly) -> dict[str, Any]:
    """Return the states of all state machines and of their maps by name."""
    found: dict[str, Any] = {}
    machines = assembly.resources("AWS::StepFunctions::StateMachine")
    ahead = [assembly.definition(each)["States"] for each in machines]
    while ahead:
        states = ahead.pop()
        found |= {f"{len(found)} {name}" if name in found else name: state for name, state in states.items()}
        ahead += [state["ItemProcessor"]["States"] for state in states.values() if state["Type"] == "Map"]
    return found


def tasks_of(assembly: Assembly) -> list[tuple[str, Any]]:
    return [(name, state) for name, state in states_of(assembly).items() if state["Type"] == "Task"]


def endured(state: Any, error: str) -> float:
    """Return for how many seconds a task's retries last on average while it ends with this error."""
    names = {error, "States.TaskFailed", "States.ALL"}
    retrier = next((each for each in state.get("Retry", ()) if names & set(each["ErrorEquals"])), None)
    if retrier is None:
        return 0
    longest = retrier.get("MaxDelaySeconds", float("inf"))
    pauses = (
        min(retrier["IntervalSeconds"] * retrier.get("BackoffRate", 2) ** number, longest)
        for number in range(retrier["MaxAttempts"])
    )
    return float(sum(pauses)) * (0.5 if retrier.get("JitterStrategy") == "FULL" else 1)
