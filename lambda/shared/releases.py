"""The releases table: one item a release, one for the route, one that says what is declared.

Every write is conditional, so that two writers can't both win; each change of the route leaves a copy of
itself behind as its history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from shared.errors import code
from shared.routes import Route, Share

ROUTE, DECLARED = "route", "declared"

# The way of a release, in order. The last four are final.
WAITING, DEPLOYING, EVALUATING, PROMOTING = "waiting", "deploying", "evaluating", "promoting"
LIVE, RETIRED, FAILED, SUPERSEDED = "live", "retired", "failed", "superseded"
FINAL = frozenset({LIVE, RETIRED, FAILED, SUPERSEDED})


class RouteChangedError(Exception):
    """Somebody else changed the route since it was read. Read it again and decide anew."""


@dataclass(frozen=True)
class Release:
    """One model's way into production, as the table holds it."""

    digest: str
    state: str
    message: str = ""
    attempt: int = 0
    execution: str = ""
    request_id: str = ""
    model_arn: str = ""
    endpoint: str = ""
    started_at: int = 0
    updated_at: int = 0
    step: int = -1
    step_at: int = 0

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Release:
        """Read an item; fields that this version doesn't know are left alone."""
        known = {name: item[name] for name in cls.__dataclass_fields__ if name in item}
        return cls(**{name: int(v) if isinstance(v, Decimal) else v for name, v in known.items()})

    @property
    def is_final(self) -> bool:
        """Whether nothing works on this release any more."""
        return self.state in FINAL


class Releases:
    """The table. `now` gives epoch seconds."""

    def __init__(self, table: Any, now: Callable[[], float] = time.time) -> None:
        """Wrap a DynamoDB Table resource whose partition key is the string `id`."""
        self._table = table
        self._now = now

    def get(self, digest: str) -> Release | None:
        """The release of that digest, read consistently."""
        item = self._item(f"release@{digest}")
        return Release.from_item(item) if item else None

    def all(self) -> Iterator[Release]:
        """Every release that the table knows."""
        pages = self._table.meta.client.get_paginator("scan").paginate(
            TableName=self._table.name, ConsistentRead=True
        )
        for page in pages:
            for item in page["Items"]:
                if str(item["id"]).startswith("release@"):
                    yield Release.from_item(item)

    def update(self, digest: str, **fields: Any) -> None:
        """Set fields of a release, and the time."""
        self._update(f"release@{digest}", {"digest": digest, **fields, "updated_at": int(self._now())})

    def transition(self, digest: str, state: str, message: str, **fields: Any) -> bool:
        """Move a release to another state, unless it has reached a final one meanwhile; whether it moved.

        A release that failed or was superseded is not brought back by a step that was still running.
        """
        changes = {"digest": digest, "state": state, "message": message, **fields}
        final = {f":final{index}": name for index, name in enumerate(sorted(FINAL))}
        condition = f"attribute_not_exists(#state) OR NOT #state IN ({', '.join(final)})"
        return self._update(
            f"release@{digest}",
            {**changes, "updated_at": int(self._now())},
            condition=condition,
            values=final,
        )

    def begin(self, digest: str, *, attempt: int, execution: str, request_id: str) -> bool:
        """Start an attempt. False where another writer started this attempt or a later one before."""
        now = int(self._now())
        fields = {
            "digest": digest,
            "state": WAITING,
            "message": "the release starts",
            "attempt": attempt,
            "execution": execution,
            "request_id": request_id,
            "started_at": now,
            "updated_at": now,
            "step": -1,
            "step_at": now,
        }
        return self._update(
            f"release@{digest}",
            fields,
            condition="attribute_not_exists(#attempt) OR #attempt < :next",
            values={":next": attempt},
        )

    def remove(self, digest: str) -> None:
        """Forget a release."""
        self._table.delete_item(Key={"id": f"release@{digest}"})

    def declared(self) -> str | None:
        """The digest that the deployed stack asks for; None before its first deployment and after its end."""
        item = self._item(DECLARED)
        return str(item["digest"]) if item and item.get("digest") else None

    def declare(self, digest: str | None) -> None:
        """Say which digest the stack asks for; None while it is being deleted."""
        if digest is None:
            self._table.delete_item(Key={"id": DECLARED})
        else:
            self._update(DECLARED, {"digest": digest, "updated_at": int(self._now())})

    def route(self) -> Route:
        """The route as it is, read consistently; the empty route where there is none or it is broken."""
        return Route.from_item(self._item(ROUTE))

    def set_route(self, shares: tuple[Share, ...], *, after: Route, reason: str) -> Route:
        """Replace the route that was read as `after`. Raises RouteChangedError where it changed since."""
        route = Route(version=after.version + 1, shares=shares, updated_at=int(self._now()), reason=reason)
        put: dict[str, Any] = {
            "TableName": self._table.name,
            "Item": route.to_item(),
            "ExpressionAttributeNames": {"#version": "version"},
        }
        if after.version:
            put["ConditionExpression"] = "#version = :read"
            put["ExpressionAttributeValues"] = {":read": after.version}
        else:
            # A broken item reads as version 0 as well, and may be replaced.
            put["ConditionExpression"] = "attribute_not_exists(id) OR NOT attribute_type(#version, :number)"
            put["ExpressionAttributeValues"] = {":number": "N"}
        record = {
            "TableName": self._table.name,
            "Item": {**route.to_item(), "id": f"{ROUTE}@{route.version:09d}"},
        }
        try:
            self._table.meta.client.transact_write_items(TransactItems=[{"Put": put}, {"Put": record}])
        except ClientError as error:
            if code(error) in {"TransactionCanceledException", "ConditionalCheckFailedException"}:
                raise RouteChangedError(f"The route changed after version {after.version}.") from error
            raise
        return route

    def drop_from_route(self, digest: str, reason: str) -> None:
        """Take a release out of the route, whatever its share was."""
        for _ in range(5):
            route = self.route()
            rest = tuple(share for share in route.shares if share.release != digest)
            if rest == route.shares:
                return
            try:
                self.set_route(rest, after=route, reason=reason)
            except RouteChangedError:
                continue
            return
        raise RouteChangedError(f"Release {digest} could not be taken out of a route that keeps changing.")

    def _item(self, key: str) -> dict[str, Any] | None:
        item: dict[str, Any] | None = self._table.get_item(Key={"id": key}, ConsistentRead=True).get("Item")
        return item

    def _update(
        self,
        key: str,
        fields: Mapping[str, Any],
        *,
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> bool:
        names = {f"#{name}": name for name in fields}
        request: dict[str, Any] = {
            "Key": {"id": key},
            "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in fields),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": {**{f":{name}": v for name, v in fields.items()}, **(values or {})},
        }
        if condition:
            request["ConditionExpression"] = condition
        try:
            self._table.update_item(**request)
        except ClientError as error:
            if code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True
