"""Run a state machine in the emulator's Step Functions, where every task gets the same answer.

Reads `definition`, `input`, `answer` and the number of `objects` in each folder as JSON from standard input.
Prints status, error, cause and output of the execution. Waits take no time.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import stepfunctions as limits  # type: ignore[import-not-found]  # this folder is on the import path when it runs
from ministack.services import stepfunctions

ACCOUNT = "000000000000"
MACHINE = f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:m"
EXECUTION = f"arn:aws:states:us-east-1:{ACCOUNT}:execution:m:one"


def run(scene: dict[str, Any]) -> dict[str, Any]:
    """Run an execution to its end, and return it."""
    limits.install()
    stepfunctions._invoke_resource = lambda _resource, _input: _answer(scene["answer"])
    stepfunctions._read_map_items = lambda *_: [
        {"Key": f"{'folder/' * 8}{number:05d}.jsonl"} for number in range(scene["objects"])
    ]
    stepfunctions._scaled_sleep = lambda _seconds: None
    stepfunctions._emit_execution_status_event = lambda _execution: None
    execution = {
        "executionArn": EXECUTION,
        "stateMachineArn": MACHINE,
        "name": "one",
        "status": "RUNNING",
        "startDate": stepfunctions.now_iso(),
        "input": json.dumps(scene["input"]),
        "events": [],
    }
    stepfunctions._executions[EXECUTION] = execution
    stepfunctions._state_machines[MACHINE] = {"name": "m", "definition": json.dumps(scene["definition"])}
    stepfunctions._run_execution(EXECUTION)
    return execution


def _answer(answer: Any) -> Any:
    if "Error" in answer:
        raise stepfunctions._ExecutionError(answer["Error"], answer["Cause"])
    return answer


if __name__ == "__main__":
    ended = run(json.load(sys.stdin))
    json.dump({name: ended.get(name) for name in ("status", "error", "cause", "output")}, sys.stdout)
