"""The contract with CloudFormation, through the CDK's Provider framework, in one place.

CloudFormation sends every property as a string, keeps 4,096 bytes of an answer, and may deliver an event
twice (AWS CloudFormation, custom resource request and response objects).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The framework adds a stack trace and the log group's name to the reason, so that ours stays well below
# the 4,096 bytes of the whole response.
REASON_CHARACTERS = 900


@dataclass(frozen=True)
class Event:
    """One request of CloudFormation, or one question of the framework's isComplete."""

    request_type: str
    request_id: str
    stack_id: str
    logical_id: str
    physical_id: str | None
    properties: Mapping[str, Any]
    old_properties: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> Event:
        """Read an event; ResponseURL is left out, since whoever has it can answer for us."""
        return cls(
            request_type=str(event["RequestType"]),
            request_id=str(event.get("RequestId", "")),
            stack_id=str(event.get("StackId", "")),
            logical_id=str(event.get("LogicalResourceId", "")),
            physical_id=event.get("PhysicalResourceId"),
            properties=dict(event.get("ResourceProperties", {})),
            old_properties=dict(event.get("OldResourceProperties", {})),
            raw={key: value for key, value in event.items() if key != "ResponseURL"},
        )

    @property
    def is_delete(self) -> bool:
        """Whether the resource is to go."""
        return self.request_type == "Delete"


def answer(physical_id: str, data: Mapping[str, str] | None = None, **carried: Any) -> dict[str, Any]:
    """onEvent's answer. `carried` fields reach isComplete, and only that."""
    result: dict[str, Any] = {"PhysicalResourceId": physical_id, **carried}
    if data:
        result["Data"] = dict(data)
    return result


def pending() -> dict[str, Any]:
    """isComplete's answer while the work goes on. The framework refuses data here."""
    return {"IsComplete": False}


def complete(data: Mapping[str, str] | None = None) -> dict[str, Any]:
    """isComplete's answer once the resource is in the state that was asked for."""
    return {"IsComplete": True, "Data": dict(data)} if data else {"IsComplete": True}


def truth(value: Any) -> bool:
    """A boolean property: CloudFormation delivers it as the string `true` or `false`."""
    return str(value).lower() == "true"


def shortened(reason: str) -> str:
    """A reason that fits the response, cut in the middle so that its start and its advice both stay."""
    if len(reason) <= REASON_CHARACTERS:
        return reason
    half = REASON_CHARACTERS // 2 - 3
    return f"{reason[:half]} … {reason[-half:]}"
