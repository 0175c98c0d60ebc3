"""The emulator's CloudFormation treats a custom resource in progress as AWS does.

The custom resource's function sends each event to the test, which answers it, or does not.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.engine.engine import Engine

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-cloudformation")]

STACK = "things"
INVENTED = re.compile(rf"{STACK}-\w+-[A-Z0-9]{{12}}")
CODE = """
import json, urllib.request
def handler(event, context):
    url, body = event["ResourceProperties"]["Listener"], json.dumps(event).encode()
    if event["RequestType"] == "Create" and event["ResourceProperties"].get("IsLate"):
        urllib.request.urlopen(url, timeout=60).close()  # answered once there was a Delete
    urllib.request.urlopen(urllib.request.Request(url, body), timeout=60).close()
"""
TRUST = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    },
}
SECONDS = 120.0

Event = Mapping[str, Any]


@dataclass
class Listener:
    """Receives and answers the events, except `silent` and `failing` ones, named like "Create Thing"."""

    engine: Engine
    events: list[Event] = field(default_factory=list)
    statuses: list[str | None] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    url: str = ""

    def receive(self, event: Event) -> None:
        """Keep an event and the stack's status, and answer in the background."""
        answered = name(event) not in self.silent  # A test that sees the event may change `silent`.
        self.statuses.append(self.engine.status(STACK))
        self.events.append(event)
        if answered:
            status = "FAILED" if name(event) in self.failing else "SUCCESS"
            threading.Thread(target=self.answer, args=(event, status)).start()

    def answer(self, event: Event, status: str = "SUCCESS", physical_id: str = "") -> int:
        """Send the response to an event; return the HTTP status."""
        logical_id = event["LogicalResourceId"]
        body = {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")} | {
            "Status": status,
            "Reason": "as told",
            "PhysicalResourceId": physical_id or event.get("PhysicalResourceId") or f"the-{logical_id}",
        }
        request = Request(event["ResponseURL"], data=json.dumps(body).encode(), method="PUT")
        context = ssl.create_default_context(cafile=str(self.engine.state.certificate))
        with urlopen(request, timeout=SECONDS, context=context) as answer:
            return int(answer.status)

    def told(self) -> list[str]:
        """Return the names of the events, such as "Create Thing", in order."""
        return [name(event) for event in self.events]

    def event(self, wanted: str) -> Event:
        """Wait for an event and return it."""
        end = time.monotonic() + SECONDS
        while wanted not in self.told():
            assert time.monotonic() < end, self.told()
            time.sleep(0.02)
        return self.events[self.told().index(wanted)]

    def template(self, *things: str, **more: Any) -> dict[str, Any]:
        """Return a template with custom resources, each of which depends on the one before."""
        resources: dict[str, Any] = {
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST}},
            "Function": {
                "Type": "AWS::Lambda::Function",
                "Properties": {
                    "Runtime": "python3.13",
                    "Handler": "index.handler",
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Code": {"ZipFile": CODE},
                    "Timeout": 60,
                },
            },
        }
        before = "Function"
        for thing in things:
            token = {"Fn::GetAtt": ["Function", "Arn"]}
            properties = {"ServiceToken": token, "Listener": self.url, **more}
            resources[thing] = {"Type": "Custom::Thing", "Properties": properties, "DependsOn": before}
            before = thing
        return {"Resources": resources}


def name(event: Event) -> str:
    return f"{event['RequestType']} {event['LogicalResourceId']}"


@pytest.fixture
def listener(engine: Engine) -> Iterator[Listener]:
    listener = Listener(engine)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listener.event("Delete Thing")
            self.send_response(204)
            self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.receive(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    listener.url = f"http://127.0.0.1:{server.server_port}/"
    yield listener
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("how", "reason"),
    [("cancelled", "Resource creation cancelled"), ("timeout", "did not receive a response")],
)
def test_a_create_without_a_response_is_deleted_by_an_invented_id(
    engine: Engine, listener: Listener, how: str, reason: str
) -> None:
    listener.silent = {"Create Thing"}
    engine.begin(STACK, listener.template("Thing"))
    created = listener.event("Create Thing")
    engine.cancel(STACK, logical_id="Thing", how=how)
    outcome = engine.wait(STACK)
    assert outcome.status == "ROLLBACK_COMPLETE"
    assert any(reason in text for text in outcome.reasons), outcome
    assert listener.told() == ["Create Thing", "Delete Thing"]
    deleted = listener.events[1]
    assert INVENTED.fullmatch(deleted["PhysicalResourceId"])
    assert deleted["ResourceProperties"] == created["ResourceProperties"]
    assert listener.statuses == ["CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"]
    # The response comes late: accepted and ignored.
    assert listener.answer(created) == 200
    assert engine.status(STACK) == "ROLLBACK_COMPLETE"
    assert engine.delete(STACK).succeeded
    assert listener.told() == ["Create Thing", "Delete Thing"]


def test_a_cancelled_update_is_taken_back_and_its_late_response_ignored(
    engine: Engine, listener: Listener
) -> None:
    assert engine.deploy(STACK, listener.template("Thing", Value="old")).succeeded
    listener.silent = {"Update Thing"}
    engine.begin(STACK, listener.template("Thing", Value="new"))
    updated = listener.event("Update Thing")
    listener.silent = set()
    engine.cancel(STACK, operation="Update")
    outcome = engine.wait(STACK)
    assert outcome.status == "UPDATE_ROLLBACK_COMPLETE"
    assert any("Resource update cancelled" in text for text in outcome.reasons), outcome
    assert listener.told() == ["Create Thing", "Update Thing", "Update Thing"]
    back = listener.events[2]
    assert back["PhysicalResourceId"] == "the-Thing"
    assert (back["ResourceProperties"]["Value"], back["OldResourceProperties"]["Value"]) == ("old", "new")
    assert listener.answer(updated, physical_id="another") == 200
    assert engine.resources(STACK)["Thing"] == "the-Thing"
    assert engine.delete(STACK).succeeded
    assert listener.events[-1]["PhysicalResourceId"] == "the-Thing"


def test_an_order_waits_for_its_operation_and_its_time(engine: Engine, listener: Listener) -> None:
    listener.silent = {"Create Second"}
    engine.cancel(STACK, logical_id="Second", after=0.5)
    began = time.monotonic()
    outcome = engine.deploy(STACK, listener.template("First", "Second"))
    assert outcome.status == "ROLLBACK_COMPLETE"
    assert time.monotonic() - began > 0.5
    listener.event("Create Second")
    assert [text for text in listener.told() if text != "Create Second"] == [
        *("Create First", "Delete Second", "Delete First")
    ]
    (applied,) = engine.cancelled()
    assert (applied["logical_id"], applied["operation"]) == ("Second", "Create")


def test_a_delete_may_overtake_the_function_of_its_create(engine: Engine, listener: Listener) -> None:
    """CloudFormation waits for no function that it has stopped waiting for, and Lambda starts some late."""
    listener.silent = {"Create Thing"}
    engine.cancel(STACK, logical_id="Thing")
    assert engine.deploy(STACK, listener.template("Thing", IsLate="yes")).status == "ROLLBACK_COMPLETE"
    listener.event("Create Thing")
    assert listener.told() == ["Delete Thing", "Create Thing"]


def test_a_lost_response_keeps_the_operation_in_progress_until_it_times_out(
    engine: Engine, listener: Listener
) -> None:
    engine.lose_response(STACK, after=1)
    began = time.monotonic()
    assert engine.deploy(STACK, listener.template("Thing")).status == "ROLLBACK_COMPLETE"
    assert time.monotonic() - began > 1
    assert INVENTED.fullmatch(listener.event("Delete Thing")["PhysicalResourceId"])


def test_a_withdrawn_order_does_not_apply(engine: Engine, listener: Listener) -> None:
    engine.cancel(STACK)
    engine.withdraw_cancellations()
    assert engine.deploy(STACK, listener.template("Thing")).succeeded


def test_a_failed_create_is_deleted_in_the_rollback_by_the_id_in_its_response(
    engine: Engine, listener: Listener
) -> None:
    listener.failing = {"Create Thing"}
    assert engine.deploy(STACK, listener.template("Thing")).status == "ROLLBACK_COMPLETE"
    assert listener.told() == ["Create Thing", "Delete Thing"]
    assert listener.events[1]["PhysicalResourceId"] == "the-Thing"
    assert listener.statuses == ["CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"]


def test_a_stack_deleted_while_it_is_created_deletes_what_was_in_progress(
    engine: Engine, listener: Listener
) -> None:
    listener.silent = {"Create Second"}
    engine.begin(STACK, listener.template("First", "Second", "Third"))
    listener.event("Create Second")
    assert engine.delete(STACK).succeeded
    assert listener.told() == ["Create First", "Create Second", "Delete Second", "Delete First"]
    assert INVENTED.fullmatch(listener.events[2]["PhysicalResourceId"])
    assert listener.events[3]["PhysicalResourceId"] == "the-First"
    assert set(listener.statuses[2:]) == {"DELETE_IN_PROGRESS"}
    assert engine.status(STACK) is None


def test_a_moved_resource_is_created_before_the_old_one_is_deleted_in_clean_up(
    engine: Engine, listener: Listener
) -> None:
    assert engine.deploy(STACK, listener.template("Old")).succeeded
    assert engine.deploy(STACK, listener.template("New")).succeeded
    assert listener.told() == ["Create Old", "Create New", "Delete Old"]
    assert listener.statuses[1:] == ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"]


def machine(logical_id: str, **properties: Any) -> dict[str, Any]:
    """Return a template with a state machine."""
    definition = {"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}
    return {
        "Resources": {
            logical_id: {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "DefinitionString": json.dumps(definition),
                    "RoleArn": "arn:aws:iam::000000000000:role/machine",
                    **properties,
                },
            }
        }
    }


def test_a_generated_name_of_a_state_machine_lacks_the_stacks(engine: Engine, listener: Listener) -> None:
    assert engine.deploy(STACK, machine("Machine")).succeeded
    arn = engine.resources(STACK)["Machine"]
    name = arn.rpartition(":")[2]
    assert name.startswith("Machine-")
    assert STACK not in name

    assert engine.deploy(STACK, machine("Machine", Tags=[{"Key": "team", "Value": "search"}])).succeeded
    assert engine.resources(STACK)["Machine"] == arn
    assert engine.delete(STACK).succeeded


def test_a_moved_state_machine_needs_another_name(engine: Engine, listener: Listener) -> None:
    """CloudFormation creates the new one before it deletes the old one."""
    assert engine.deploy(STACK, machine("Old", StateMachineName="team-machine")).succeeded
    outcome = engine.deploy(STACK, machine("New", StateMachineName="team-machine"))
    assert outcome.status == "UPDATE_ROLLBACK_COMPLETE"
    assert any("State Machine Already Exists" in reason for reason in outcome.reasons), outcome

    assert engine.deploy(STACK, machine("New", StateMachineName="team-New")).succeeded
    assert engine.resources(STACK)["New"].endswith(":team-New")
    assert engine.delete(STACK).succeeded


def test_a_move_that_is_rolled_back_deletes_only_the_new_resource(engine: Engine, listener: Listener) -> None:
    assert engine.deploy(STACK, listener.template("Old")).succeeded
    listener.failing = {"Create Sibling"}
    outcome = engine.deploy(STACK, listener.template("New", "Sibling"))
    assert outcome.status == "UPDATE_ROLLBACK_COMPLETE"
    assert listener.told() == ["Create Old", "Create New", "Create Sibling", "Delete Sibling", "Delete New"]
    assert engine.resources(STACK)["Old"] == "the-Old"


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (
            {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
            "role does not have permissions to call CreateNetworkInterface on EC2",
        ),
        ({"Environment": {"Variables": {"TAGS": "x" * 4096}}}, "exceeded the 4KB limit"),
    ],
)
def test_a_function_that_lambda_refuses_fails_its_stack(
    engine: Engine, listener: Listener, properties: Mapping[str, Any], reason: str
) -> None:
    template = listener.template()
    template["Resources"]["Function"]["Properties"] |= properties
    outcome = engine.deploy(STACK, template)
    assert outcome.status == "ROLLBACK_COMPLETE"
    assert any(reason in text for text in outcome.reasons), outcome
    assert engine.delete(STACK).succeeded


def test_a_function_is_not_updated_to_what_lambda_refuses(engine: Engine, listener: Listener) -> None:
    assert engine.deploy(STACK, listener.template()).succeeded
    template = listener.template()
    template["Resources"]["Function"]["Properties"]["VpcConfig"] = {
        "SubnetIds": ["subnet-1"],
        "SecurityGroupIds": ["sg-1"],
    }
    assert engine.deploy(STACK, template).status == "UPDATE_ROLLBACK_COMPLETE"
    assert engine.interfaces()["held"] == []
    assert engine.delete(STACK).succeeded


@pytest.mark.parametrize("waits", [False, True])
def test_a_stage_with_settings_of_a_route_is_created_after_the_route_only(
    engine: Engine, waits: bool
) -> None:
    api = {"Ref": "Api"}
    stage = {
        "Type": "AWS::ApiGatewayV2::Stage",
        "Properties": {
            "ApiId": api,
            "StageName": "$default",
            "RouteSettings": {"POST /many": {"ThrottlingRateLimit": 1, "ThrottlingBurstLimit": 1}},
        },
        **({"DependsOn": "TheRoute"} if waits else {}),
    }
    resources = {
        "Api": {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Name": "a", "ProtocolType": "HTTP"}},
        "Stage": stage,
        "TheRoute": {
            "Type": "AWS::ApiGatewayV2::Route",
            "Properties": {"ApiId": api, "RouteKey": "POST /many"},
        },
    }
    outcome = engine.deploy(STACK, {"Resources": resources})
    assert outcome.succeeded == waits
    assert waits or any("Unable to find Route by key POST /many" in text for text in outcome.reasons), outcome
    assert engine.delete(STACK).succeeded


def test_a_resource_whose_deletion_fails_in_clean_up_is_abandoned(engine: Engine, listener: Listener) -> None:
    assert engine.deploy(STACK, listener.template("Old")).succeeded
    listener.failing = {"Delete Old"}
    assert engine.deploy(STACK, listener.template("New")).status == "UPDATE_COMPLETE"
    assert "Old" not in engine.resources(STACK)
    assert engine.delete(STACK).succeeded
    assert listener.told() == ["Create Old", "Create New", "Delete Old", "Delete New"]
