"""The Provider framework's own code, from the CDK's assets, behaves like our double of it.

The unit tests run the handlers behind `tests/unit/framework.py`. An upgrade of aws-cdk-lib that
changes the framework is seen here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_lambda as lambda_
from aws_cdk import custom_resources as cr
from aws_cdk.assertions import Template
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.provider import INTERVAL, LONGEST_NAME, TOTAL, ResourceProvider
from cdk_distilled_router.common.retries import OF_FUNCTION
from operate.cdk import node
from tests.stacks.assembly import Assembly, is_framework, unhashed
from tests.unit import framework
from tests.unit.framework import MARKER, Framework

HOST = Path(__file__).with_name("framework_host.cjs")
POLLS = 4
OURS, NEXT = "video-router-prod-0123456789ab", "video-router-prod-ba9876543210"
PENDING: Mapping[str, Any] = {"IsComplete": False}
REFUSED: Mapping[str, Any] = {"errorMessage": "Bedrock did not create job x.", "trace": ["at", "at"]}

Answers = Sequence[Mapping[str, Any]]
Seen = Mapping[str, Any]


def case(event: Mapping[str, Any], on_event: Answers, is_complete: Answers | None = None) -> dict[str, Any]:
    """Return a request and the functions' answers, in the order of their calls."""
    return {"event": event, "onEvent": on_event, "isComplete": is_complete, "polls": POLLS}


CREATE, UPDATE = framework.create({}), framework.update(OURS, {}, {})
DELETE, IGNORED = framework.delete(OURS, {}), framework.delete(MARKER, {})
ANSWER, OTHER = {"PhysicalResourceId": OURS}, {"PhysicalResourceId": NEXT}

CASES: Mapping[str, Mapping[str, Any]] = {
    "c1 without isComplete": case(CREATE, [{**ANSWER, "Data": {"A": "1"}}]),
    "c1 asked again": case(
        CREATE,
        [{**ANSWER, "RequestedAt": 1.5, "Data": {"A": "1", "B": "1"}}],
        [PENDING, PENDING, {"IsComplete": True, "Data": {"B": "2"}}],
    ),
    "c2 create fails in onEvent": case(CREATE, [REFUSED], [PENDING]),
    "c2 update fails in onEvent": case(UPDATE, [REFUSED], [PENDING]),
    "c2 delete fails in onEvent": case(DELETE, [REFUSED], [PENDING]),
    "c2 create fails in isComplete": case(CREATE, [ANSWER], [PENDING, REFUSED]),
    "c4 update keeps the id": case(UPDATE, [ANSWER], [{"IsComplete": True}]),
    "c4 update changes the id": case(UPDATE, [OTHER], [{"IsComplete": True}]),
    "c4 delete": case(DELETE, [ANSWER], [PENDING, {"IsComplete": True}]),
    "c6 never complete": case(CREATE, [ANSWER], [PENDING]),
    "c6 delete that is never complete": case(DELETE, [ANSWER], [PENDING]),
    "c7 delete of the marker": case(IGNORED, [REFUSED], [REFUSED]),
}
# Cases in which the framework fails and the double raises AssertionError.
MISTAKES: Mapping[str, Mapping[str, Any]] = {
    "c3 no id": case(CREATE, [{}], [{"IsComplete": True}]),
    "c4 delete changes the id": case(DELETE, [OTHER], [PENDING]),
    "c5 data too early": case(CREATE, [ANSWER], [{"IsComplete": False, "Data": {"A": "1"}}]),
}


@pytest.fixture(scope="session")
def real(assemblies: Mapping[str, Assembly]) -> Mapping[str, Seen]:
    """Return the framework's result of each case."""
    everything = {**CASES, **MISTAKES}
    (folder,) = {path.parent for path in assemblies["local"].folder.glob("asset.*/framework.js")}
    asked = {"folder": str(folder), "cases": list(everything.values())}
    result = subprocess.run(
        [node(), HOST], input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=True
    )
    return dict(zip(everything, json.loads(result.stdout), strict=True))


class Scripted:
    """A function with scripted answers; the last one repeats."""

    def __init__(self, answers: Answers) -> None:
        self._answers = list(answers)
        self.calls = 0

    def __call__(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        self.calls += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if "errorMessage" in answer:
            raise RuntimeError(answer["errorMessage"])
        return answer


def doubled(given: Mapping[str, Any]) -> tuple[framework.Response, dict[str, int]]:
    """Return the double's result of a case, and the number of calls of each function."""
    on_event = Scripted(given["onEvent"])
    is_complete = Scripted(given["isComplete"]) if given["isComplete"] else None
    double = Framework(on_event, is_complete, most_polls=POLLS)
    response = double.send(given["event"])
    return response, {"onEvent": on_event.calls, "isComplete": is_complete.calls if is_complete else 0}


@pytest.mark.parametrize("name", CASES)
def test_the_double_answers_as_the_framework_does(real: Mapping[str, Seen], name: str) -> None:
    """Cases C1, C2, C4, C6, C7."""
    response, calls = doubled(CASES[name])
    (sent,) = real[name]["responses"]

    assert (response.status, response.physical_id) == (sent["Status"], sent["PhysicalResourceId"])
    assert response.data == sent.get("Data", {})
    assert response.reason in sent["Reason"]
    assert calls == real[name]["calls"]


def test_the_reason_of_a_failure_names_the_functions_log_group(real: Mapping[str, Seen]) -> None:
    """Case C2."""
    (sent,) = real["c2 create fails in isComplete"]["responses"]
    assert "Logs: /aws/lambda/isComplete" in sent["Reason"]


def test_without_an_id_the_framework_takes_the_requests(real: Mapping[str, Seen]) -> None:
    """So that an Update, which has another request, would be a replacement. Case C3."""
    (sent,) = real["c3 no id"]["responses"]
    assert sent["PhysicalResourceId"] == CREATE["RequestId"]
    with pytest.raises(AssertionError, match="invent an id"):
        doubled(MISTAKES["c3 no id"])


def test_a_delete_that_changes_the_id_is_an_error(real: Mapping[str, Seen]) -> None:
    """Case C4."""
    (sent,) = real["c4 delete changes the id"]["responses"]
    assert (sent["Status"], sent["PhysicalResourceId"]) == ("FAILED", OURS)
    with pytest.raises(AssertionError, match="changed the id"):
        doubled(MISTAKES["c4 delete changes the id"])


def test_data_before_the_end_is_an_error(real: Mapping[str, Seen]) -> None:
    """Case C5."""
    (sent,) = real["c5 data too early"]["responses"]
    assert (sent["Status"], "is not allowed" in sent["Reason"]) == ("FAILED", True)
    with pytest.raises(AssertionError, match="refuses data"):
        doubled(MISTAKES["c5 data too early"])


def test_a_timeout_is_told_to_cloudformation_and_not_to_the_handler(real: Mapping[str, Seen]) -> None:
    """Case C6."""
    found = real["c6 never complete"]
    assert found["responses"][0]["Reason"] == "Operation timed out"
    assert found["calls"] == {"onEvent": 1, "isComplete": POLLS}


def test_a_create_that_failed_in_on_event_is_marked_and_its_delete_ignored(
    real: Mapping[str, Seen],
) -> None:
    """Case C7."""
    (sent,) = real["c2 create fails in onEvent"]["responses"]
    assert sent["PhysicalResourceId"] == MARKER
    assert real["c7 delete of the marker"]["calls"] == {"onEvent": 0, "isComplete": 0}


def test_every_provider_of_ours_runs_this_framework(assembly: Assembly) -> None:
    found = {
        function.properties["Code"]["S3Key"].removesuffix(".zip")
        for function in assembly.resources("AWS::Lambda::Function")
        if is_framework(function)
    }
    assets = {path.parent.name for path in assembly.folder.glob("asset.*/framework.js")}
    assert {f"asset.{key}" for key in found} == assets
    assert len(assets) == 1


def test_our_waiter_differs_from_the_frameworks_only_in_the_retries_of_its_last_task() -> None:
    stack = cdk.Stack(cdk.App(), "test")
    on_event, is_complete = (_function(stack, name) for name in ("OnEvent", "IsComplete"))
    ResourceProvider(stack, "Ours", on_event=on_event, is_complete=is_complete, hosting=Hosting(log_days=7))
    cr.Provider(
        stack,
        "Cdks",
        on_event_handler=on_event,
        is_complete_handler=is_complete,
        total_timeout=TOTAL,
        query_interval=INTERVAL,
    )
    ours, cdks = _waiter(stack, "Ours"), _waiter(stack, "Cdks")
    assert ours["States"]["framework-onTimeout-task"].pop("Retry") == list(OF_FUNCTION)
    assert ours == cdks


def _names(stack: cdk.Stack) -> dict[str, str]:
    """Return the names of state machines by logical id."""
    machines = Template.from_stack(stack).find_resources("AWS::StepFunctions::StateMachine")
    return {key: machine["Properties"]["StateMachineName"] for key, machine in machines.items()}


def _with_waiter(stack: cdk.Stack, scope: Construct) -> cdk.Stack:
    on_event, is_complete = (_function(stack, name) for name in ("OnEvent", "IsComplete"))
    ResourceProvider(
        scope, "Provider", on_event=on_event, is_complete=is_complete, hosting=Hosting(log_days=7)
    )
    return stack


@pytest.mark.parametrize("path", ["Job", "Moved", "A" * 100])
def test_the_waiter_is_named_after_its_stack_and_its_logical_id(path: str) -> None:
    """CloudFormation's own name lacks the stack's (aws-amplify/amplify-hosting#2597).

    A construct that moves has another logical id, and its old state machine still has the old name.
    """
    stack = cdk.Stack(cdk.App(), "team-dev-release")
    ((logical_id, name),) = _names(_with_waiter(stack, Construct(stack, path))).items()

    assert name.startswith("team-dev-release-")
    assert len(name) <= LONGEST_NAME
    assert name.endswith(logical_id[-8:] if len(path) < 100 else name[-8:])
    others: list[str] = []
    for parent in ("Another", "B" * 100):
        stack = cdk.Stack(cdk.App(), "team-dev-release")
        others += _names(_with_waiter(stack, Construct(stack, parent))).values()
    assert name not in others


def test_a_waiter_with_another_logical_id_has_another_name() -> None:
    stack = cdk.Stack(cdk.App(), "team-dev-release")
    _with_waiter(stack, stack)
    machine = stack.node.find_child("Provider").node.find_child("waiter-state-machine")
    resource = machine.node.find_child("Resource")
    assert isinstance(resource, cdk.CfnElement)
    resource.override_logical_id("Renamed")

    assert _names(stack) == {"Renamed": "team-dev-release-Renamed"}


def _function(stack: cdk.Stack, name: str) -> lambda_.Function:
    code = lambda_.Code.from_inline("handler = print")
    runtime = lambda_.Runtime.PYTHON_3_13
    return lambda_.Function(stack, name, runtime=runtime, handler="index.handler", code=code)


def _waiter(stack: cdk.Stack, provider: str) -> dict[str, Any]:
    """Return the definition of a provider's state machine, with functions by their names in the provider."""
    machines = Template.from_stack(stack).find_resources("AWS::StepFunctions::StateMachine")
    (machine,) = (found for name, found in machines.items() if name.startswith(provider))
    parts = machine["Properties"]["DefinitionString"]["Fn::Join"][1]
    definition: dict[str, Any] = json.loads(
        "".join(
            part if isinstance(part, str) else unhashed(part["Fn::GetAtt"][0]).removeprefix(provider)
            for part in parts
        )
    )
    return definition
