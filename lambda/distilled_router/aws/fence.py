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
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code

_REQUESTS, _SINCE, _DELETING = "requests", "since", "deleting"
# Condition: a person damaged the requests.
_DAMAGED = "attribute_exists(#requests) AND NOT attribute_type(#requests, :list)"


class SupersededError(ResourceError):
    """CloudFormation has sent a newer request to the same resource."""


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
            update += " REMOVE #deleting"
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

    def end_delete(self) -> None:
        """Store that this Delete has ended, so that the resource may be created again."""
        try:
            self._update("REMOVE #deleting", "#deleting = :id", {":id": self.request_id})
        except ClientError as error:
            # The stack is gone.
            if code(error) != "ResourceNotFoundException":
                raise

    def _update(self, update: str, condition: str, values: Mapping[str, Any]) -> bool:
        """Update the resource's item; return whether the condition held."""
        names = {f"#{name}": name for name in (_REQUESTS, _SINCE, _DELETING)}
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
