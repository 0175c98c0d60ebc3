"""The releases table: one item a release, one for the route, one that says what is declared.

Every write is conditional, so that two writers can't both win. A step of a rise changes the route and its
release in one transaction, so that no crash leaves one without the other. Each change of the route leaves a
copy of itself behind as its history.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import code, with_retries
from distilled_router.release.route import Route, Share

ROUTE, DECLARED = "route", "declared"
_RELEASE = "release@"

# The way of a release, in order. The last four are final.
WAITING, DEPLOYING, EVALUATING, PROMOTING = "waiting", "deploying", "evaluating", "promoting"
LIVE, RETIRED, FAILED, SUPERSEDED = "live", "retired", "failed", "superseded"
FINAL = frozenset({LIVE, RETIRED, FAILED, SUPERSEDED})

# How long a step may take: the timeout of its function.
CREATING_SECONDS = 300
# A plain write meets a transaction on the same item: it may be made again at once.
_CONFLICT_SECONDS = 5.0


class RouteChangedError(Exception):
    """Somebody else changed the route since it was read. Read it again and decide anew."""

    def __init__(self, text: str, refused: Sequence[int] = ()) -> None:
        """`refused` numbers the writes of the transaction whose own condition did not hold."""
        super().__init__(text)
        self.refused = tuple(refused)


@dataclass(frozen=True)
class Release:
    """One model's way into production, as the table holds it.

    `source` is where its model comes from: the name of a job of ours, a job's ARN or a model's ARN.
    `labelling` is the execution that this attempt waited for, where a labelling makes the job. `stopping`
    says why its job is being stopped, and is empty where it is not. `throughput` is the name of
    the provisioned throughput that it serves from or is on its way to, and empty where it serves on demand.
    `creating_until` is the epoch second until which a step may be creating something for it. `rolled_back` is
    the epoch second at which somebody took it out of service by hand, and 0 where nobody did.
    """

    digest: str
    state: str = WAITING
    message: str = ""
    attempt: int = 0
    execution: str = ""
    request_id: str = ""
    source: str = ""
    labelling: str = ""
    stopping: str = ""
    model_arn: str = ""
    endpoint: str = ""
    throughput: str = ""
    started_at: int = 0
    updated_at: int = 0
    step: int = -1
    step_at: int = 0
    creating_until: int = 0
    rolled_back: int = 0

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Release:
        """Read an item; fields that this version doesn't know are left alone.

        An item that somebody cut down by hand counts as a release on its way: nothing of it is removed.
        """
        known = {name: item[name] for name in cls.__dataclass_fields__ if name in item}
        known["digest"] = str(item["id"]).removeprefix(_RELEASE)
        # All numbers of a release are whole.
        values: dict[str, Any] = {k: int(v) if isinstance(v, Decimal) else v for k, v in known.items()}
        return cls(**values)

    def token(self, name: str) -> str:
        """The client request token with which this attempt creates something of that name.

        One an attempt, in every life of the table: attempts are counted anew when a stack is made anew, and
        Bedrock ignores a create call whose token it knows, even where what it made was deleted since.
        """
        return hashlib.sha256(f"{name} {self.attempt} {self.request_id}".encode()).hexdigest()

    @property
    def life(self) -> str:
        """Tells this attempt from one of its name in an earlier life of the stack, which left its reports."""
        return self.token("evaluation")[:12]

    @property
    def is_adopted(self) -> bool:
        """Whether its model comes from a job or a model of others, which is named by its ARN."""
        return self.source.startswith("arn:")

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
        item = self._item(_key(digest))
        return Release.from_item(item) if item else None

    def all(self) -> Iterator[Release]:
        """Every release that the table knows."""
        return (Release.from_item(item) for item in self._items(_RELEASE))

    def update(self, digest: str, **fields: Any) -> bool:
        """Set fields of a release that the table knows, and the time; whether it knows it."""
        changes = {**fields, "updated_at": int(self._now())}
        return self._write(_change(digest, changes, "attribute_exists(id)"))

    def transition(
        self, digest: str, state: str, message: str, *, of_attempt: int | None = None, **fields: Any
    ) -> bool:
        """Move a release to another state, unless it has reached a final one meanwhile; whether it moved.

        A release that failed or was superseded is not brought back by a step that was still running. With
        `of_attempt`, only that attempt is moved: whoever judges an old one must not end its successor.
        """
        change = self._moving(digest, state, message, fields)
        if of_attempt is not None:
            change["ConditionExpression"] += " AND #attempt = :of_attempt"
            change["ExpressionAttributeNames"]["#attempt"] = "attempt"
            change["ExpressionAttributeValues"][":of_attempt"] = of_attempt
        return self._write(change)

    def begin(self, digest: str, *, attempt: int, execution: str, request_id: str, source: str = "") -> bool:
        """Start an attempt. False where another writer started this attempt or a later one before."""
        now = int(self._now())
        fields = {
            "digest": digest,
            "state": WAITING,
            "message": "the release starts",
            "attempt": attempt,
            "execution": execution,
            "request_id": request_id,
            "source": source,
            "labelling": "",
            "stopping": "",
            "throughput": "",
            "rolled_back": 0,
            "started_at": now,
            "updated_at": now,
            "step": -1,
            "step_at": now,
        }
        # `:attempt` is the value that is set.
        return self._write(_change(digest, fields, "attribute_not_exists(#attempt) OR #attempt < :attempt"))

    def declared(self) -> str | None:
        """The digest that the deployed stack asks for; None before its first deployment and after its end."""
        item = self._item(DECLARED)
        return str(item["digest"]) if item and item.get("digest") else None

    def declare(self, digest: str | None) -> None:
        """Say which digest the stack asks for; None while it is being deleted."""
        self._table.put_item(
            Item={"id": DECLARED, "digest": digest or "", "updated_at": int(self._now())},
        )

    @contextmanager
    def creating(self, digest: str) -> Iterator[bool]:
        """While a step makes something that costs, and that is looked for by its owner's tag: whether it may.

        Stopping an execution stops no function that runs. So a step says so first, and looks then whether the
        stack is being deleted; whoever deletes says that first, and looks then whether a step is at it
        (`is_creating`). One of them sees the other, and nothing comes into being after the last look.
        """
        self._note_creating(digest, int(self._now()) + CREATING_SECONDS)
        try:
            yield not self._is_closed()
        finally:
            self._note_creating(digest, 0)

    def is_creating(self) -> bool:
        """Whether a step of any release may be making something at this moment."""
        return any(release.creating_until > self._now() for release in self.all())

    def _is_closed(self) -> bool:
        item = self._item(DECLARED)
        return item is not None and not item.get("digest")

    def _note_creating(self, digest: str, until: int) -> None:
        self._write(_change(digest, {"creating_until": until}, "attribute_exists(id)"))

    def route(self) -> Route:
        """The route as it is, read consistently; the empty route where there is none or it is broken."""
        return Route.from_item(self._item(ROUTE))

    def effective_route(self) -> Route:
        """The route that requests may take: where somebody broke the item, routers go on with the last one
        that they could read, so that the last copy's shares count beside what can still be read."""
        route = self.route()
        if route.problem is None:
            return route
        last = max(self._copies(), key=lambda copy: copy.version, default=Route())
        rest = tuple(share for share in last.shares if share not in route.shares)
        return replace(route, shares=(*route.shares, *rest))

    def set_route(self, shares: tuple[Share, ...], *, after: Route, reason: str) -> Route:
        """Replace the route that was read as `after`. Raises RouteChangedError where it changed since."""
        route = self._next(shares, after, reason)
        self._transact(self._replacing(route, after))
        return route

    def move_with_route(
        self,
        digest: str,
        state: str,
        message: str,
        shares: tuple[Share, ...],
        *,
        after: Route,
        retiring: str | None = None,
        **fields: Any,
    ) -> bool:
        """Move a release and replace the route, both or neither; whether it was done.

        False where the release has reached a final state meanwhile. `retiring` is the release that loses
        its place by this. Raises RouteChangedError where the route changed since it was read as `after`.
        """
        writes = self._replacing(self._next(shares, after, f"release {digest}: {message}"), after)
        moved = len(writes)
        writes.append({"Update": self._moving(digest, state, message, fields)})
        if retiring:
            last = {
                "digest": retiring,
                "state": RETIRED,
                "message": f"replaced by release {digest}",
                "updated_at": int(self._now()),
            }
            writes.append({"Update": _change(retiring, last)})
        return self._transact_unless_refused(writes, moved)

    def roll_back(
        self,
        digest: str,
        endpoint: str,
        *,
        after: Route,
        reason: str,
        retiring: Sequence[Release],
        **fields: Any,
    ) -> bool:
        """Give a retired release all requests again, and retire those that lose their place; all or nothing.

        False where it is not retired any more. Raises RouteChangedError where the route changed since it was
        read as `after`, or one of those that lose their place has begun again since it was read.
        """
        now = int(self._now())
        writes = self._replacing(self._next((Share(digest, endpoint, 1.0),), after, reason), after)
        moved = len(writes)
        live = {
            "state": LIVE,
            "message": "serves all requests, rolled back to by hand",
            "endpoint": endpoint,
            "rolled_back": 0,
            **fields,
            "updated_at": now,
        }
        writes.append({"Update": _change(digest, live, "#state = :retired", {":retired": RETIRED})})
        for release in retiring:
            last = {
                "state": RETIRED,
                "message": f"rolled back by hand, to release {digest}",
                "rolled_back": now,
                "updated_at": now,
            }
            change = _change(
                release.digest,
                last,
                "attribute_exists(id) AND (attribute_not_exists(#attempt) OR #attempt = :of_attempt)",
                {":of_attempt": release.attempt},
            )
            change["ExpressionAttributeNames"]["#attempt"] = "attempt"
            writes.append({"Update": change})
        return self._transact_unless_refused(writes, moved)

    def move_endpoint(self, digest: str, endpoint: str, reason: str) -> bool:
        """Give the settled release another endpoint of the same model; whether it is still the settled one.

        Raises RouteChangedError where the route changed meanwhile.
        """
        route = self.route()
        settled = route.live
        if settled is None or settled.digest != digest:
            return False
        if settled.endpoint != endpoint:
            shares = tuple(replace(s, endpoint=endpoint) if s == settled else s for s in route.shares)
            self.set_route(shares, after=route, reason=reason)
        return True

    def withdraw(self, digest: str, reason: str) -> None:
        """Give a release's partial share back to the settled one.

        A settled share stays: what serves is only ever replaced, so that no failure of a release, its own
        included, takes away an endpoint that works. Where somebody broke the item, routers go on with the
        last one that they could read, partial shares included, so that this is what it is taken out of.
        """
        for _ in range(5):
            route = self.effective_route()
            rest = [s for s in route.shares if s.digest != digest or s.expires_at is None]
            if len(rest) == len(route.shares):
                return
            partial = sum(s.share for s in rest if s.expires_at is not None)
            shares = tuple(replace(s, share=1.0 - partial) if s == route.live else s for s in rest)
            try:
                self.set_route(shares, after=route, reason=reason)
            except RouteChangedError:
                continue
            return
        raise RouteChangedError(f"Release {digest} could not be taken out of a route that keeps changing.")

    def _items(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._table.meta.client.get_paginator("scan").paginate(
            TableName=self._table.name, ConsistentRead=True
        )
        for page in pages:
            yield from (item for item in page["Items"] if str(item["id"]).startswith(prefix))

    def _item(self, key: str) -> dict[str, Any] | None:
        item: dict[str, Any] | None = self._table.get_item(Key={"id": key}, ConsistentRead=True).get("Item")
        return item

    def _next(self, shares: tuple[Share, ...], after: Route, reason: str) -> Route:
        # Where the version can't be read, or the item is gone, the copies go on to be counted: a number that
        # is used again would write over one of them.
        last = after.version or max((copy.version for copy in self._copies()), default=0)
        return Route(version=last + 1, shares=shares, updated_at=int(self._now()), reason=reason)

    def _copies(self) -> Iterator[Route]:
        """The route's history, in no order."""
        return (Route.from_item(item) for item in self._items(f"{ROUTE}@"))

    def _replacing(self, route: Route, after: Route) -> list[dict[str, Any]]:
        put: dict[str, Any] = {"Item": route.to_item(), "ExpressionAttributeNames": {"#version": "version"}}
        if after.version:
            put["ConditionExpression"] = "#version = :read"
            put["ExpressionAttributeValues"] = {":read": after.version}
        else:
            # A broken item reads as version 0 as well, and may be replaced.
            put["ConditionExpression"] = (
                "attribute_not_exists(id) OR NOT attribute_type(#version, :number) OR #version < :first"
            )
            put["ExpressionAttributeValues"] = {":number": "N", ":first": 1}
        record = {"Item": {**route.to_item(), "id": f"{ROUTE}@{route.version:09d}"}}
        return [{"Put": put}, {"Put": record}]

    def _moving(self, digest: str, state: str, message: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The write that moves a release, unless it is unknown or has reached a final state."""
        final = {f":final{index}": name for index, name in enumerate(sorted(FINAL))}
        changes = {"state": state, "message": message, **fields, "updated_at": int(self._now())}
        condition = f"attribute_exists(id) AND NOT #state IN ({', '.join(final)})"
        return _change(digest, changes, condition, final)

    def _write(self, change: dict[str, Any]) -> bool:
        """Make one write; False where its condition does not hold."""
        try:
            with_retries(
                lambda: self._table.update_item(**change),
                retryable=lambda error: code(error) == "TransactionConflictException",
                seconds=_CONFLICT_SECONDS,
            )
        except ClientError as error:
            if code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def _transact_unless_refused(self, writes: list[dict[str, Any]], number: int) -> bool:
        """Make all writes or none; False where the numbered one's own condition did not hold."""
        try:
            self._transact(writes)
        except RouteChangedError as error:
            if number in error.refused:
                return False
            raise
        return True

    def _transact(self, writes: list[dict[str, Any]]) -> None:
        """Make all writes or none; the first two replace the route.

        Raises RouteChangedError, which says whose condition did not hold. A conflict with another
        transaction, and throttling, are no other case: read again and decide anew.
        """
        items = [
            {kind: {**w, "TableName": self._table.name} for kind, w in write.items()} for write in writes
        ]
        try:
            self._table.meta.client.transact_write_items(TransactItems=items)
        except ClientError as error:
            if code(error) != "TransactionCanceledException":
                raise
            reasons = error.response.get("CancellationReasons", [])
            if any(reason.get("Code") == "ValidationError" for reason in reasons):
                raise
            refused = [
                n for n, reason in enumerate(reasons) if reason.get("Code") == "ConditionalCheckFailed"
            ]
            raise RouteChangedError("The route changed after it was read.", refused) from error


def _key(digest: str) -> str:
    return f"{_RELEASE}{digest}"


def _change(
    digest: str,
    fields: Mapping[str, Any],
    condition: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """UpdateItem's parameters. Every name goes by a placeholder: `state` and others are reserved words."""
    change: dict[str, Any] = {
        "Key": {"id": _key(digest)},
        "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in fields),
        "ExpressionAttributeNames": {f"#{name}": name for name in fields},
        "ExpressionAttributeValues": {**{f":{name}": v for name, v in fields.items()}, **(values or {})},
    }
    if condition:
        change["ConditionExpression"] = condition
    return change
