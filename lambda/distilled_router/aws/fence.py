"""Recognise requests of CloudFormation that a newer request has superseded.

CloudFormation abandons a Create or Update when another resource of the stack fails, and sends a rollback or
a Delete. The Provider framework does not learn of it: its state machine keeps calling isComplete for the
abandoned request (aws-cdk #26139, cloudformation-coverage-roadmap #1814). The status of the resource does
not help, since the rollback of an Update is itself an Update in progress.

So each request is registered, in the order of arrival, before anything is done for it. Only the newest
request of a resource may create anything. Its time is stored, too: a poll that waits for too long can then
say what it waited for, before the framework ends with "Operation timed out".

Lambda may deliver an event late: the Create of a resource after its Delete. CloudFormation sends nothing
else to a resource while it waits for a Delete, so what arrives meanwhile is late, and is refused.

An Update that was abandoned may have created a replacement whose id CloudFormation never learned. So ids and
properties of requests are kept until a request is complete; before that, it removes what the abandoned ones
created.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any, Self

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code

_REQUESTS, _SINCE, _DELETING = "requests", "since", "deleting"
# The newest request that is no Delete; what requests answered with; the id of the last one that completed.
_NEWEST, _OPEN, _COMPLETE = "newest", "open", "complete"
_FIELDS = (_REQUESTS, _SINCE, _DELETING, _NEWEST, _OPEN, _COMPLETE)
# Condition: a person damaged the requests.
_DAMAGED = "attribute_exists(#requests) AND NOT attribute_type(#requests, :list)"


class SupersededError(ResourceError):
    """CloudFormation has sent a newer request to the same resource."""


@dataclass(frozen=True)
class Answered:
    """What a Create or Update answered with, and its properties.

    `before` is the id that it replaced, until that is deleted.
    """

    request_id: str
    physical_id: str
    properties: Mapping[str, Any]
    before: str = ""

    @classmethod
    def of(cls, entry: Any) -> Self | None:
        """Return an entry of the item; None if there is none, or a person damaged it."""
        try:
            found = json.loads(entry)
            return cls(
                *(str(found["request_id"]), str(found["physical_id"])),
                dict(found["properties"]),
                str(found.get("before", "")),
            )
        except (TypeError, ValueError, KeyError):
            return None

    @property
    def entry(self) -> str:
        """Return the entry for the item."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Fence:
    """The requests of one resource, in a table with one item for each resource.

    Attributes:
        table: the requests table, a DynamoDB table resource.
        stack_id, logical_id: the resource.
        request_id: the request that is being handled.
        is_delete: whether it is a Delete.
        wait_seconds: for how long the framework polls for a request. A Delete that is older has ended.
        now: returns epoch seconds.
    """

    table: Any
    stack_id: str
    logical_id: str
    request_id: str
    is_delete: bool
    wait_seconds: float = math.inf
    now: Callable[[], float] = time.time

    def register(self) -> None:
        """Register the request as the newest one, if it is new.

        An event that is delivered again is not new. Raises SupersededError if a newer request is registered,
        or if the resource is being deleted. An item that a person damaged counts for nothing.
        """
        update = "SET #requests = list_append(if_not_exists(#requests, :none), :this), #since = :since"
        condition = f"NOT contains(#requests, :id) AND NOT ({_DAMAGED})"
        values = {":none": [], ":this": [self.request_id], ":id": self.request_id, ":since": int(self.now())}
        if self.is_delete:
            update += ", #deleting = :id"
        else:
            update += ", #newest = :id REMOVE #deleting"
            condition += (
                " AND (attribute_not_exists(#deleting) OR #since <= :ended"
                " OR NOT attribute_type(#since, :number))"
            )
            values |= {":ended": self._ended, ":number": "N"}
        if self._update(update, condition, {**values, ":list": "L"}):
            return
        if self._update("REMOVE #requests", _DAMAGED, {":list": "L"}):
            self.register()
        else:
            self.check()

    def note(self, physical_id: str, properties: Mapping[str, Any]) -> None:
        """Store what this Create or Update answered with, until a request is complete."""
        this = Answered(self.request_id, physical_id, dict(properties))
        self._update(
            "SET #open = list_append(if_not_exists(#open, :none), :this)",
            "attribute_not_exists(#open) OR attribute_type(#open, :list)",
            {":none": [], ":this": [this.entry], ":list": "L"},
        )

    def complete(self, physical_id: str, properties: Mapping[str, Any]) -> None:
        """Store that this Create or Update is complete, and that nothing of abandoned ones is left."""
        last = Answered.of(self._item().get(_COMPLETE))
        before = (last.before if last.physical_id == physical_id else last.physical_id) if last else ""
        this = Answered(self.request_id, physical_id, dict(properties), before)
        values = {":this": this.entry, ":id": self.request_id}
        self._update("SET #complete = :this REMOVE #open", "#newest = :id", values)

    def abandoned(self, physical_id: str) -> list[Answered]:
        """Return the requests whose creations nobody needs when this one is complete.

        `physical_id` is this request's. An id that CloudFormation may still know is left out: that of the
        last complete request; and if a newer one returns to the id before it, that id, since a rollback can
        be skipped. Only a Delete of the id itself includes them.
        """
        item = self._item()
        last, listed = Answered.of(item.get(_COMPLETE)), item.get(_OPEN)
        entries = map(Answered.of, listed) if isinstance(listed, list) else ()
        found = [entry for entry in entries if entry]
        used = set[str]() if self.is_delete else {physical_id}
        if last:
            newest = item.get(_NEWEST)
            target = next((each for each in found if each.request_id == newest), None)
            if last.request_id == newest or not self.is_delete:
                used.add(last.physical_id)
            else:
                # No clean-up after a replacement: CloudFormation may never have learned of the last one.
                found.append(last)
                used |= {last.before} if target and target.physical_id == last.before else set()
        if self.is_delete:
            used.discard(physical_id)
        return [each for each in found if each.request_id != self.request_id and each.physical_id not in used]

    def end_delete(self, physical_id: str, *, is_complete: bool) -> None:
        """Store that this Delete has ended, so that the resource may be created again."""
        values, update = {":id": self.request_id}, "REMOVE #deleting"
        try:
            if is_complete:
                update += ", #open"
                last = Answered.of(self._item().get(_COMPLETE))
                if last and last.physical_id != physical_id:
                    before = "" if last.before == physical_id else last.before
                    values[":last"] = replace(last, before=before).entry
                    update = f"SET #complete = :last {update}"
                else:
                    update += ", #complete"
            self._update(update, "#deleting = :id", values)
        except ClientError as error:
            # The stack is gone.
            if code(error) != "ResourceNotFoundException":
                raise

    def _update(self, update: str, condition: str, values: Mapping[str, Any]) -> bool:
        """Update the resource's item; return whether the condition held."""
        names = {f"#{name}": name for name in _FIELDS}
        try:
            self.table.update_item(
                Key=self._key,
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames={n: f for n, f in names.items() if n in f"{update} {condition}"},
                ExpressionAttributeValues=values,
            )
        except ClientError as error:
            if code(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    @property
    def _ended(self) -> int:
        """Return the time of requests that the framework does not poll for any more, in epoch seconds."""
        return int(max(self.now() - self.wait_seconds, 0))

    def check(self) -> float:
        """Return for how many seconds the request has been registered.

        Raises SupersededError unless it is the newest one of its resource. A missing table or item means that
        the stack is gone.
        """
        item = self._item()
        known = item.get(_REQUESTS)
        newest = known[-1] if known and isinstance(known, list) else None
        if newest != self.request_id:
            by = f"request {newest}" if newest else "the stack's deletion"
            raise SupersededError(
                f"Request {self.request_id} of {self.logical_id} was superseded by {by}. It creates nothing "
                "more."
            )
        since = item.get(_SINCE)
        # A time that a person damaged only keeps the reason for a timeout from being told.
        is_known = isinstance(since, int | Decimal) and 0 < since <= self.now()
        return self.now() - float(since or 0) if is_known else 0.0

    def _item(self) -> dict[str, Any]:
        try:
            answer = self.table.get_item(Key=self._key, ConsistentRead=True)
        except ClientError as error:
            if code(error) == "ResourceNotFoundException":
                return {}
            raise
        return dict(answer.get("Item", {}))

    @property
    def _key(self) -> dict[str, str]:
        return {"id": f"{self.stack_id} {self.logical_id}"}


@contextmanager
def checked_before_each_try(client: Any, operation: str, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before each HTTP request of an operation, such as `CreateModelCustomizationJob`.

    The client repeats a throttled call for up to a minute. A newer request may arrive between two tries; what
    `check` raises then ends the call.
    """

    def hook(**_: Any) -> None:
        check()

    event = f"before-send.{client.meta.service_model.service_id.hyphenize()}.{operation}"
    client.meta.events.register_first(event, hook)
    try:
        yield
    finally:
        client.meta.events.unregister(event, hook)
