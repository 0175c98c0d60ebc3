"""The contract with CloudFormation, through the CDK's Provider framework, in one place.

CloudFormation sends every property as a string, keeps 4,096 bytes of an answer, and may deliver an event
twice (AWS CloudFormation, custom resource request and response objects).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import ResourceError, is_transient

# The framework adds a stack trace of about 1,000 bytes and the log group's name to the reason, and the ids
# of stack, request and resource stand beside it: ours stays well below the 4,096 bytes of the whole response.
REASON_BYTES = 1500

logger = Logger(child=True)


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


def is_true(value: Any) -> bool:
    """A boolean property: CloudFormation delivers it as the string `true` or `false`."""
    return str(value).lower() == "true"


def shortened(reason: str) -> str:
    """A reason that fits the response, cut in the middle so that its start and its advice both stay."""
    text, half = reason, min(len(reason), REASON_BYTES) // 2
    while _bytes(text) > REASON_BYTES:
        text = f"{reason[:half]} … {reason[-half:]}"
        half = half * 9 // 10
    return text


def _bytes(text: str) -> int:
    """The length in the response's JSON, where a quote takes two bytes and a character up to four."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace"))


def answer_event(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """onEvent's answer, or an error whose text fits CloudFormation's reason."""
    try:
        return work()
    except (ResourceError, ClientError, BotoCoreError) as error:
        raise ResourceError(shortened(str(error))) from error


def answer_poll(question: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """isComplete's answer. An error that passes means asking again: the framework gives up at the first one
    that is raised, and CloudFormation then deletes what was just paid for."""

    def ask() -> dict[str, Any]:
        try:
            return question()
        except (ClientError, BotoCoreError) as error:
            if not is_transient(error):
                raise
            logger.warning("asked again later", error=str(error))
            return pending()

    return answer_event(ask)
