"""A test double of the CDK's Provider framework: what stands between CloudFormation and our handlers.

It follows `framework.js` and `cfn-response.js` of aws-cdk-lib 2.275.0: answers are merged into the event,
events travel as JSON, the first error ends a request, a Create that fails in onEvent gets a marker for an id
and its Delete is swallowed. CloudFormation's limit on the response is checked here, for every test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

MARKER = "AWSCDK::CustomResourceProviderFramework::CREATE_FAILED"
RESPONSE_BYTES = 4096
STACK = (
    "arn:aws:cloudformation:us-east-1:000000000000:stack/video-router-prod-distillation/6f0e0a10-0000-11f0"
)
RESPONSE_URL = "https://cloudformation-custom-resource-response-useast1.s3.amazonaws.com/x?Signature=secret"
# About what Node puts under an error's message.
_TRACE = "\n".join(["    at invokeUserFunction (/var/task/framework.js:2:5678)"] * 16)

# CloudFormation invents such an id for a resource whose Create never answered.
INVENTED = "video-router-prod-distillation-JobResource5F6E7A8B-1V3QZ0EXAMPLE"

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_numbers = count(1)


@dataclass(frozen=True)
class Response:
    """The response to CloudFormation."""

    status: str
    physical_id: str
    data: Mapping[str, Any]
    reason: str
    polls: int = 0

    @property
    def succeeded(self) -> bool:
        """Return whether the request succeeded."""
        return self.status == "SUCCESS"


def request(kind: str, properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return an event as CloudFormation sends it: every property is a string, or a map or list of strings."""
    return {
        "RequestType": kind,
        "ServiceToken": "arn:aws:lambda:us-east-1:000000000000:function:framework",
        "ResponseURL": RESPONSE_URL,
        "StackId": STACK,
        "RequestId": f"00000000-0000-4000-8000-{next(_numbers):012d}",
        "ResourceType": "Custom::Bedrock",
        "LogicalResourceId": "JobResource5F6E7A8B",
        "ResourceProperties": {"ServiceToken": "arn:aws:lambda:x", **properties},
        **more,
    }


def create(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a Create event; `more` are its other members, such as `LogicalResourceId`."""
    return request("Create", properties, **more)


def update(
    physical_id: str, properties: Mapping[str, Any], old: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """Return an Update event from old properties to new ones."""
    changed = {"PhysicalResourceId": physical_id, "OldResourceProperties": dict(old)}
    return request("Update", properties, **changed, **more)


def delete(physical_id: str, properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a Delete event."""
    return request("Delete", properties, PhysicalResourceId=physical_id, **more)


@dataclass
class Framework:
    """Runs a request through the handlers; `tick` passes the time between two polls."""

    on_event: Handler
    is_complete: Handler | None = None
    tick: Callable[[], None] = lambda: None
    most_polls: int = 60
    responses: list[Response] = field(default_factory=list)

    def begin(self, event: Mapping[str, Any]) -> Waiter:
        """Send an event to onEvent, and return the waiter, which the test polls as long as it likes.

        CloudFormation may abandon the request meanwhile; the framework does not learn of that.
        """
        return Waiter(self, {**event, **_travelled(self.on_event(_travelled(event)))})

    def send(self, event: Mapping[str, Any]) -> Response:
        """Send an event and return the final response to CloudFormation."""
        if event["RequestType"] == "Delete" and event["PhysicalResourceId"] == MARKER:
            return self._respond("SUCCESS", event)
        try:
            merged = {**event, **_travelled(self.on_event(_travelled(event)))}
        except Exception as error:
            identity = event.get("PhysicalResourceId", MARKER)
            return self._respond("FAILED", {**event, "PhysicalResourceId": identity}, str(error))
        if event["RequestType"] == "Delete":
            assert merged["PhysicalResourceId"] == event["PhysicalResourceId"], "a Delete changed the id"
        assert merged.get("PhysicalResourceId"), "the framework would invent an id"
        return self._poll(merged) if self.is_complete else self._respond("SUCCESS", merged)

    def _poll(self, merged: Mapping[str, Any]) -> Response:
        response = self.poll(merged, self.most_polls)
        return response or self._respond("FAILED", merged, "Operation timed out", self.most_polls)

    def poll(self, merged: Mapping[str, Any], times: int) -> Response | None:
        """Poll isComplete a number of times; return the response to CloudFormation if that came."""
        assert self.is_complete is not None
        for polls in range(1, times + 1):
            try:
                answer = _travelled(self.is_complete(_travelled(merged)))
            except Exception as error:
                return self._respond("FAILED", merged, str(error), polls)
            if answer["IsComplete"]:
                data = {**merged.get("Data", {}), **answer.get("Data", {})}
                return self._respond("SUCCESS", {**merged, **answer, "Data": data}, polls=polls)
            assert not answer.get("Data"), "the framework refuses data with IsComplete: False"
            self.tick()
        return None

    def _respond(self, status: str, event: Mapping[str, Any], reason: str = "", polls: int = 0) -> Response:
        shown = f"Error: {reason}\n\nLogs: /aws/lambda/handler\n\n{_TRACE}" if reason else status
        body = {
            "Status": status,
            "Reason": shown,
            **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
            "PhysicalResourceId": event["PhysicalResourceId"],
            "Data": event.get("Data"),
        }
        size = len(json.dumps(body, ensure_ascii=False).encode())
        assert size <= RESPONSE_BYTES, f"CloudFormation refuses a response of {size} bytes"
        assert "Signature" not in json.dumps(body), "the response names its own URL"
        response = Response(status, event["PhysicalResourceId"], event.get("Data") or {}, reason, polls)
        self.responses.append(response)
        return response


@dataclass(frozen=True)
class Waiter:
    """The framework's state machine, which polls isComplete for one request."""

    framework: Framework
    event: Mapping[str, Any]

    def poll(self, times: int = 1) -> Response | None:
        """Poll a number of times; return the response if there is one."""
        return self.framework.poll(self.event, times)


def _travelled(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value after serialization as JSON."""
    result: dict[str, Any] = json.loads(json.dumps(value))
    return result
