"""Read CloudFormation's requests and write responses, by the contract of the CDK's Provider framework.

CloudFormation sends every property as a string, keeps 4,096 bytes of a response, and may deliver an event
twice (AWS CloudFormation, custom resource request and response objects). It may also abandon a request and
send another one while the framework still polls for the first: see `fence`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.absence import confirmed
from distilled_router.aws.clients import table
from distilled_router.aws.errors import ResourceError, is_transient
from distilled_router.aws.fence import Answered, Fence
from distilled_router.env import ResourceEnv
from distilled_router.visible import visible

# The whole response has at most 4,096 bytes. The framework adds a stack trace of about 1,000 bytes and the
# log group's name to our reason, and the ids of stack, request and resource need their space, too.
REASON_BYTES = 1500

# The last polls before the framework gives up say why.
LAST_POLLS_SECONDS = 60

# Names of the properties that say what a Delete leaves begin so.
RETAIN = "Retain"

_AWS_ERRORS = (ClientError, BotoCoreError)

logger = Logger(child=True)


@dataclass(frozen=True)
class Event:
    """A request of CloudFormation, or a call of the framework's isComplete.

    Attributes:
        fence: tells whether CloudFormation still waits for this request; None where that does not matter.
        absence_seconds: for how long a Delete must find nothing before it is complete.
        wait_seconds: for how long the framework polls for the request.
        is_abandoned: whether this is our own Delete of what an abandoned request created.
    """

    request_type: str
    request_id: str
    stack_id: str
    logical_id: str
    physical_id: str | None
    properties: Mapping[str, Any]
    old_properties: Mapping[str, Any]
    raw: Mapping[str, Any]
    fence: Fence | None = None
    absence_seconds: float = 0.0
    wait_seconds: float = math.inf
    is_abandoned: bool = False

    @classmethod
    def parse(cls, event: Mapping[str, Any], env: ResourceEnv | None = None) -> Self:
        """Read an event, without ResponseURL: anyone who has that URL can respond for us.

        `env` are the function's variables where the resource creates anything that costs.
        """
        return cls(
            request_type=str(event["RequestType"]),
            request_id=str(event.get("RequestId", "")),
            stack_id=str(event.get("StackId", "")),
            logical_id=str(event.get("LogicalResourceId", "")),
            physical_id=event.get("PhysicalResourceId"),
            properties=dict(event.get("ResourceProperties", {})),
            old_properties=dict(event.get("OldResourceProperties", {})),
            raw={key: value for key, value in event.items() if key != "ResponseURL"},
            fence=_fence(event, env) if env else None,
            absence_seconds=env.absence_seconds if env else 0.0,
            wait_seconds=env.wait_seconds if env else math.inf,
        )

    def check_newest(self) -> None:
        """Raise SupersededError if CloudFormation has sent a newer request to this resource.

        Call it before anything is created that costs money, and again afterwards to undo what was created:
        the newer request may have looked in between.
        """
        if self.fence:
            self.fence.check()

    def end(self, *, is_complete: bool) -> None:
        """Store that a Delete has ended, or that a Create or Update is complete."""
        if self.fence is None:
            return
        if self.is_delete:
            self.fence.end_delete(str(self.physical_id), is_complete=is_complete)
        elif is_complete:
            self.fence.complete(str(self.physical_id), self.properties)

    def deletions_of_abandoned(self) -> list[Self]:
        """Return a Delete for each abandoned request of the resource, which may have created something.

        What is retained, this request's properties say: those of an abandoned one are not in force.
        """
        found = self.fence.abandoned(str(self.physical_id)) if self.fence else []
        retained = {name: value for name, value in self.properties.items() if name.startswith(RETAIN)}
        return [
            replace(
                self,
                request_type="Delete",
                physical_id=each.physical_id,
                properties={k: v for k, v in each.properties.items() if not k.startswith(RETAIN)} | retained,
                old_properties={},
                raw={},
                is_abandoned=True,
            )
            for each in found
            if not self._is_for(each)
        ]

    def _is_for(self, abandoned: Answered) -> bool:
        """Return whether this is CloudFormation's own Delete of what an abandoned request created."""
        same = (abandoned.physical_id, abandoned.properties) == (self.physical_id, self.properties)
        return self.is_delete and same

    def waited_seconds(self) -> float:
        """Return for how long CloudFormation has waited for this request.

        Raises SupersededError as `check_newest` does.
        """
        return self.fence.check() if self.fence else 0.0

    @property
    def is_delete(self) -> bool:
        """Return whether CloudFormation deletes the resource."""
        return self.request_type == "Delete"


def _fence(event: Mapping[str, Any], env: ResourceEnv) -> Fence:
    identity = [str(event.get(name, "")) for name in ("StackId", "LogicalResourceId", "RequestId")]
    stack_id, logical_id, request_id = identity
    is_delete = event["RequestType"] == "Delete"
    return Fence(
        table(env.requests_table), stack_id, logical_id, request_id, is_delete, wait_seconds=env.wait_seconds
    )


def answer(physical_id: str, data: Mapping[str, str] | None = None, **carried: Any) -> dict[str, Any]:
    """Return onEvent's response. `carried` fields reach isComplete only."""
    result: dict[str, Any] = {"PhysicalResourceId": physical_id, **carried}
    if data:
        result["Data"] = dict(data)
    return result


def pending(reason: str) -> dict[str, Any]:
    """Return isComplete's response while the work is in progress; `reason` says what is awaited, and why.

    The framework ignores the reason (and refuses data here), but `answer_poll` reports it if the work takes
    too long.
    """
    return {"IsComplete": False, "Reason": reason}


def complete(data: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return isComplete's response once the resource is in the requested state."""
    return {"IsComplete": True, "Data": dict(data)} if data else {"IsComplete": True}


def is_true(value: Any) -> bool:
    """Return the value of a boolean property, which CloudFormation delivers as `true` or `false`."""
    return str(value).lower() == "true"


def shortened(reason: str) -> str:
    """Return a reason that fits the response, without escape sequences: the CDK prints it at a terminal.

    A long one is cut in the middle: its end says what to do.
    """
    reason = visible(reason)
    text, half = reason, min(len(reason), REASON_BYTES) // 2
    while _bytes(text) > REASON_BYTES:
        text = f"{reason[:half]} … {reason[-half:]}"
        half = half * 9 // 10
    return text


def _bytes(text: str) -> int:
    """Return the length in the response's JSON, where a quote takes two bytes and a character up to four."""
    return len(json.dumps(text, ensure_ascii=False).encode(errors="replace"))


def answer_event(
    event: Event, handle: Callable[[Event], dict[str, Any]], *, is_polled: bool = True
) -> dict[str, Any]:
    """Register the request and return onEvent's response.

    Without `is_polled` there is no isComplete, and the request is complete with this response. An AWS error
    is raised with a text that fits CloudFormation's reason.
    """

    def registered() -> dict[str, Any]:
        if event.fence:
            event.fence.register()
        found = handle(event)
        physical_id = str(found.get("PhysicalResourceId"))
        if event.fence and not event.is_delete:
            # The framework swallows the Delete of a Create that raises here. An abandoned Create is found by
            # its Delete's properties, too.
            with suppress(*(_AWS_ERRORS if event.request_type == "Create" else ())):
                event.fence.note(physical_id, event.properties)
        if not is_polled:
            answered = replace(event, physical_id=physical_id)
            for abandoned in answered.deletions_of_abandoned():
                handle(abandoned)
            answered.end(is_complete=True)
        return found

    return _explained(event, registered)


def answer_poll(event: Event, check: Callable[[Event], dict[str, Any]]) -> dict[str, Any]:
    """Return isComplete's response. A temporary error means "not complete yet".

    The framework gives up at the first error that is raised, and CloudFormation then deletes what was just
    paid for. A Delete is complete only if it finds nothing to do for `absence_seconds`. No request is
    complete before everything is removed that abandoned ones created. Raises ResourceError with the reason of
    the last poll shortly before the framework would end with "Operation timed out".
    """

    def poll() -> dict[str, Any]:
        waited = 0.0
        try:
            waited = event.waited_seconds()
            found = _checked(event, check)
        except (ClientError, BotoCoreError) as error:
            if not is_transient(error):
                raise
            logger.warning("AWS call failed temporarily; polling again", error=str(error))
            found = pending(f"An AWS call failed: {error}")
        if not found["IsComplete"] and waited > event.wait_seconds - LAST_POLLS_SECONDS:
            raise ResourceError(
                f"{event.logical_id} was not complete after {waited / 60:.0f} minutes. {found['Reason']}"
            )
        return found

    return _explained(event, poll)


def _checked(event: Event, check: Callable[[Event], dict[str, Any]]) -> dict[str, Any]:
    """Return the response of a request and of the Deletes of what abandoned ones created."""
    found = complete() if event.is_delete else check(event)
    if not found["IsComplete"]:
        return found
    abandoned = event.deletions_of_abandoned()
    deletions = [event, *abandoned] if event.is_delete else abandoned

    def unfinished() -> dict[str, Any] | None:
        answers = (check(each) for each in deletions)
        return next((given for given in answers if not given["IsComplete"]), None)

    left = confirmed(unfinished, event.absence_seconds) if deletions else None
    if left is None:
        event.end(is_complete=True)
    return left or found


def _explained(event: Event, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except (ResourceError, ClientError, BotoCoreError) as error:
        with suppress(*_AWS_ERRORS):
            event.end(is_complete=False)
        raise ResourceError(shortened(str(error))) from error
