"""A double of the requests table: the requests of each resource in the order of arrival, and seals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws import custom_resource
from distilled_router.aws.custom_resource import Event, answer_event, answer_poll
from distilled_router.aws.fence import Fence
from distilled_router.env import ResourceEnv
from tests.unit.framework import Framework

type Handle = Callable[[Event], dict[str, Any]]


class RequestsTable:
    """DynamoDB's UpdateItem and GetItem, as far as `Fence` and the ledger of spending use them."""

    def __init__(self) -> None:
        """Start without requests. `now` returns epoch seconds, `wait_seconds` is the provider's timeout."""
        self.items: dict[str, list[str]] = {}
        self.since: dict[str, int] = {}
        self.deleting: dict[str, str] = {}
        self.newest: dict[str, str] = {}
        self.open: dict[str, list[str]] = {}
        self.complete: dict[str, str] = {}
        self.committed: dict[str, str] = {}
        self.seals: dict[str, dict[str, Any]] = {}
        self.now: Callable[[], float] = time.time
        self.wait_seconds = math.inf

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Append a request to a resource's list unless the condition fails, or end a Delete."""
        key, values = request["Key"]["id"], request["ExpressionAttributeValues"]
        if "#seal" in request["UpdateExpression"]:
            item = self.seals.setdefault(key, {"seal": values[":seal"], "since": values[":since"]})
            if request["UpdateExpression"].endswith("#since = :since"):
                item["since"] = values[":since"]
            return {"Attributes": dict(item)}
        self._update(key, values, request)
        return {}

    def _update(self, key: str, values: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        update, condition = request["UpdateExpression"], request["ConditionExpression"]
        if "#committed" in update:
            self._require(self.committed.get(key) == values.get(":before"))
            self.committed[key] = values[":entries"]
            return
        known, deleting = self.items.setdefault(key, []), self.deleting.get(key)
        if "REMOVE #deleting" in update and condition == "#deleting = :id":
            self._require(deleting == values[":id"])
            del self.deleting[key]
            if "#open" in update:
                self.open.pop(key, None)
            if ":last" in values:
                self.complete[key] = values[":last"]
            elif "#complete" in update:
                self.complete.pop(key, None)
        elif "SET #complete" in update:
            self._require(self.newest.get(key) == values[":id"])
            self.complete[key] = values[":this"]
            self.open.pop(key, None)
        elif "SET #open" in update:
            self.open.setdefault(key, []).extend(values[":this"])
        else:
            # No person damages this table.
            self._require(update != "REMOVE #requests" and values[":id"] not in known)
            if "attribute_not_exists(#deleting)" in condition:
                self._require(deleting is None or self.since[key] <= values[":ended"])
            known.extend(values[":this"])
            self.since[key] = values[":since"]
            if "#deleting = :id" in update:
                self.deleting[key] = values[":id"]
            else:
                self.deleting.pop(key, None)
                self.newest[key] = values[":id"]

    def pass_time(self, seconds: float) -> None:
        """Make all requests older."""
        self.since = {key: since - int(seconds) for key, since in self.since.items()}

    @staticmethod
    def _require(condition: bool) -> None:
        if not condition:
            raise ClientError(
                {"Error": {"Code": "ConditionalCheckFailedException", "Message": "no"}}, "UpdateItem"
            )

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return a resource's requests."""
        key = request["Key"]["id"]
        if key in self.committed:
            return {"Item": {"committed": self.committed[key]}}
        if key in self.seals:
            return {"Item": self.seals[key]}
        if not self.items.get(key):
            return {}
        item: dict[str, Any] = {"requests": list(self.items[key]), "since": self.since.get(key)}
        for name in ("open", "complete", "newest"):
            values = getattr(self, name)
            if key in values:
                item[name] = values[key]
        return {"Item": item}

    def event(self, raw: Mapping[str, Any]) -> Event:
        """Return an event of CloudFormation with its fence."""
        parsed = Event.parse(raw)
        identity = (parsed.stack_id, parsed.logical_id, parsed.request_id)
        fence = Fence(self, *identity, parsed.is_delete, self.wait_seconds, self.now)
        return Event(**{**vars(parsed), "fence": fence, "wait_seconds": self.wait_seconds})


def behind_framework(
    requests: RequestsTable, handle: Handle, check: Handle | None = None, **more: Any
) -> Framework:
    """Return a resource's handlers behind the Provider framework, with their fence."""

    def on_event(raw: Mapping[str, Any]) -> dict[str, Any]:
        event = requests.event(raw)
        return answer_event(event, handle, is_polled=check is not None)

    def is_complete(raw: Mapping[str, Any]) -> dict[str, Any]:
        assert check is not None
        event = requests.event(raw)
        return answer_poll(event, check)

    return Framework(on_event, is_complete if check else None, **more)


def provide(monkeypatch: pytest.MonkeyPatch, owner: str = "search") -> RequestsTable:
    """Give the entry points of custom resources a requests table and its variables."""
    requests = RequestsTable()
    env = ResourceEnv(owner=owner, requests_table="requests", absence_seconds=0, wait_seconds=2400)
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(custom_resource, "table", lambda _: requests)
    return requests


def register(requests: RequestsTable, raw: Mapping[str, Any]) -> None:
    """Register an event as onEvent does."""
    fence = requests.event(raw).fence
    assert fence
    fence.register()
