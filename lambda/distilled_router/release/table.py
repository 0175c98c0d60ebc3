"""The releases table: for each owner one item for each release, the route and the declared digest.

An item's key begins with the owner, so that owners who share a table never share an item.

Every write is conditional, so two writers can't both win. A step of a rollout changes the route and its
release in one transaction, so a crash never leaves one without the other. Each change of the route adds a
copy of it to the route's history, which DynamoDB deletes some time after the next change.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import NotYetError, code, with_retries
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.declarations import Declarations
from distilled_router.release.route import (
    DECLARED,
    RELEASE,
    ROUTE,
    ROUTE_COPY,
    TIME_TO_LIVE,
    HeadFile,
    Route,
    Share,
    item_key,
    whole,
)

# The states of a release, in order. The last four are final.
WAITING, DEPLOYING, EVALUATING, ROLLING_OUT = "waiting", "deploying", "evaluating", "rolling_out"
LIVE, RETIRED, FAILED, SUPERSEDED = "live", "retired", "failed", "superseded"
FINAL = frozenset({LIVE, RETIRED, FAILED, SUPERSEDED})

# Condition: still the attempt that was read, or one whose execution a person damaged.
_SAME_ATTEMPT = "(#execution = :of_execution OR NOT attribute_type(#execution, :string))"
# Condition: no writer has started this attempt or a later one. `:attempt` is the new value.
_IS_NEXT = "NOT attribute_type(#attempt, :number) OR #attempt < :attempt"
_STATE = {"#state": "state"}
SERVES_ALL, BY_HAND = "serves all requests", "rolled back by hand"
# Seconds that a step may take: the timeout of its function.
CREATING_SECONDS = 300
# How long a copy of a route is kept after the next one replaced it. The newest copy has no end: if a person
# deletes or breaks the route, the next write counts on from it.
COPY_SECONDS = 90 * 24 * 3_600
# Seconds for which a write is retried that conflicts with a transaction on the same item.
_CONFLICT_SECONDS = 5.0


class RouteChangedError(Exception):
    """Another writer changed the route since it was read. Read it and decide again."""

    def __init__(self, text: str, refused: Sequence[int] = ()) -> None:
        """Keep the positions of the transaction's writes whose own condition did not hold."""
        super().__init__(text)
        self.refused = tuple(refused)


@dataclass(frozen=True)
class Release:
    """One model's way into production, as the table holds it.

    Attributes:
        digest: covers all that decides the model.
        state: one of the states above.
        message: what the release does, or why it ended; below it, each finding of the gate in a line.
        attempt: counts the release's starts, from 1.
        declared_attempt: the highest `release.attempt` with which it was declared.
        execution: ARN of the attempt's execution.
        request_id: id of CloudFormation's request that started the attempt.
        source: where the model comes from: the name of this package's job, a job's ARN or a model's ARN.
        labelling: ARN of the execution that the attempt waited for, if a labelling creates the job.
        stopping: why the job is being stopped; empty if it is not.
        model_arn: ARN of the model.
        endpoint: ARN of the deployment or provisioned throughput that serves the model.
        throughput: name of the provisioned throughput that serves the model or will; empty on demand.
        started_at, updated_at: epoch seconds.
        step: the round of the rollout, from 0; -1 before the first.
        step_at: epoch second at which the step began.
        rolling_since: epoch second at which the rollout began.
        probed: evidence of the rollout's probes (`rollout.evidence.Probed`); empty before the first.
        creating_until: epoch second until which a step may be creating a resource for the release.
        rolled_back: epoch second at which an operator rolled the release back, or ended its rollout; 0 if
            none did, or another attempt has begun since.
        seal: key of the seals on the attempt's files (`aws.objects.Seal`); empty if it began before there
            were any.
        holdout_key: key of the hold-out set on which the attempt evaluates; empty if it began before it was
            noted.
        training_sha256: SHA-256 of the training rows, by the job's tag; empty until it is known.
        holdout_sha256: SHA-256 of the hold-out set; empty until it is known.
        passed_on: key of the hold-out set on which the gate last let the release pass.
        passed: scores, report and warnings of that evaluation, its attempt and its seal, as JSON.
        reevaluating: whether the attempt evaluates the live release again, on another hold-out set.
        head, head_sha256: key of the classification head's file in the data bucket, and the file's SHA-256;
            empty if the release has no head.
        scores: the candidate's scores by metric as JSON; empty until it is evaluated.
        warnings: what the evaluation warns of, which stays true when the release is live.
    """

    digest: str
    state: str = WAITING
    message: str = ""
    attempt: int = 0
    declared_attempt: int = 1
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
    rolling_since: int = 0
    probed: str = field(default="", repr=False)
    creating_until: int = 0
    rolled_back: int = 0
    seal: str = field(default="", repr=False)
    holdout_key: str = ""
    training_sha256: str = ""
    holdout_sha256: str = ""
    passed_on: str = ""
    passed: str = field(default="", repr=False)
    reevaluating: bool = False
    head: str = ""
    head_sha256: str = ""
    scores: str = ""
    warnings: str = ""

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Release:
        """Read an item. Fields that this version does not know are ignored.

        A field that is missing or that a person damaged has its default, so that no reader fails. An item
        without a state counts as a release in progress, so nothing of it is removed.
        """
        values: dict[str, Any] = {"digest": str(item["id"]).partition(f"/{RELEASE}")[2]}
        for name, known in cls.__dataclass_fields__.items():
            value = item.get(name)
            if known.type == "int":
                value = whole(value)
            if name != "digest" and value is not None and type(value).__name__ == known.type:
                values[name] = value
        return cls(**values)

    def token(self, name: str) -> str:
        """Return the client request token with which this attempt creates a resource of that name.

        It differs for each attempt and each life of the table: a new stack counts its attempts from 1 again,
        and Bedrock ignores a create call whose token it knows, even if the resource was deleted since.
        """
        return hashlib.sha256(f"{name} {self.attempt} {self.request_id}".encode()).hexdigest()

    @property
    def headline(self) -> str:
        """Return the first line of the message, without the findings of the gate."""
        return self.message.partition("\n")[0]

    @property
    def head_file(self) -> HeadFile | None:
        """Return the file of its classification head; None if it has none, or a person damaged its name."""
        return HeadFile(self.head, self.head_sha256) if self.head and self.head_sha256 else None

    def share(self, part: float, expires_at: int | None = None) -> Share:
        """Return a share of the requests, with the release's model endpoint and classification head."""
        return Share(self.digest, self.endpoint, part, expires_at, self.head_file)

    @property
    def life(self) -> str:
        """Return an id of this attempt that is unique across all lives of the stack.

        An earlier life may have left reports under the same digest and attempt.
        """
        return self.token("evaluation")[:12]

    @property
    def is_adopted(self) -> bool:
        """Return whether its model comes from an existing job or model, which `source` names by its ARN."""
        return any(f":{kind}/" in self.source for kind in ("custom-model", "model-customization-job"))

    @property
    def is_final(self) -> bool:
        """Return whether the release is in a final state."""
        return self.state in FINAL

    @property
    def is_reevaluated(self) -> bool:
        """Return whether the release is live and its attempt evaluates it again."""
        return self.state == LIVE and self.reevaluating

    @property
    def is_over(self) -> bool:
        """Return whether no attempt is in progress."""
        return self.is_final and not self.is_reevaluated

    @property
    def next_start(self) -> str:
        """Return how a release that an operator rolled back starts again."""
        return f"raise release.attempt above {self.declared_attempt} to start it again"

    @property
    def has_passed(self) -> bool:
        """Return whether the release has passed the gate on the hold-out set of its last attempt."""
        return self.passed_on == self.holdout_key


class Releases:
    """Reads and writes an owner's items of the releases table.

    `table` is its DynamoDB Table resource, `now` returns epoch seconds.
    """

    def __init__(self, table: Any, owner: str, now: Callable[[], float] = time.time) -> None:
        """Wrap a DynamoDB Table resource whose partition key is the string `id`."""
        self.table = table
        self.owner = owner
        self.now = now

    def get(self, digest: str) -> Release | None:
        """Return the release of that digest, read consistently."""
        item = self._item(f"{RELEASE}{digest}")
        return Release.from_item(item) if item else None

    def all(self) -> Iterator[Release]:
        """Return all releases."""
        return (Release.from_item(item) for item in self._items(RELEASE))

    def update(self, digest: str, **fields: Any) -> bool:
        """Set fields of a release, and the time of the update. Return whether the release exists."""
        changes = {**fields, "updated_at": int(self.now())}
        return self._write(self._change(digest, changes, "attribute_exists(id)"))

    def transition(
        self, digest: str, state: str, message: str, *, of_execution: str | None = None, **fields: Any
    ) -> bool:
        """Move a release to another state, unless it is in a final one. Return whether it moved.

        So a step that is still running never revives a release that failed or was superseded. `of_execution`
        moves that attempt only: a caller that ends an old attempt must not end a newer one.
        """
        change = self._moving(digest, state, message, fields)
        return self._write(change if of_execution is None else _of_attempt(change, of_execution))

    def begin(
        self,
        digest: str,
        *,
        attempt: int,
        execution: str,
        request_id: str,
        source: str = "",
        holdout_key: str = "",
        declared_attempt: int = 1,
    ) -> bool:
        """Start an attempt. Return False if another writer has started this attempt or a later one."""
        now = int(self.now())
        fields = {
            "digest": digest,
            "state": WAITING,
            "message": "the release starts",
            "attempt": attempt,
            "declared_attempt": declared_attempt,
            "execution": execution,
            "request_id": request_id,
            "source": source,
            "labelling": "",
            "stopping": "",
            "throughput": "",
            "rolled_back": 0,
            "seal": secrets.token_hex(32),
            "holdout_key": holdout_key,
            "training_sha256": "",
            "holdout_sha256": "",
            "passed_on": "",
            "passed": "",
            "reevaluating": False,
            "head": "",
            "head_sha256": "",
            "warnings": "",
            "started_at": now,
            "updated_at": now,
            "step": -1,
            "step_at": now,
            "rolling_since": 0,
            "probed": "",
        }
        return self._write(self._change(digest, fields, _IS_NEXT, {":number": "N"}))

    def begin_again(
        self,
        digest: str,
        *,
        attempt: int,
        execution: str,
        request_id: str,
        holdout_key: str,
        declared_attempt: int = 1,
    ) -> bool:
        """Start an attempt that only evaluates the live release, on another hold-out set.

        The release stays live whatever comes out. Return False if it is not live any more, or another writer
        has started this attempt or a later one.
        """
        fields = {
            "message": f"{SERVES_ALL}; it is to be evaluated on another hold-out set",
            "attempt": attempt,
            "declared_attempt": declared_attempt,
            "execution": execution,
            "request_id": request_id,
            "seal": secrets.token_hex(32),
            "holdout_key": holdout_key,
            "holdout_sha256": "",
            "reevaluating": True,
            "updated_at": int(self.now()),
        }
        values = {":number": "N", ":live": LIVE}
        return self._write(self._change(digest, fields, f"({_IS_NEXT}) AND #state = :live", values, _STATE))

    def evaluating(self, digest: str, message: str) -> bool:
        """Say what the evaluation does now. Return False if the release has ended.

        A live release that is evaluated again stays live.
        """
        return self.transition(digest, EVALUATING, message) or self._note_again(
            digest, f"{SERVES_ALL}; on another hold-out set, {message}"
        )

    def give_head(self, digest: str, message: str, head: HeadFile, *, of_execution: str) -> bool:
        """Note a classification head, while that attempt is evaluated. Return whether it was noted.

        A step whose answer got lost may end when the rollout has begun: it must not move the release back.
        """
        fields = {"message": message, "head": head.key, "head_sha256": head.sha256}
        change = self._change(
            digest,
            {**fields, "updated_at": int(self.now())},
            "#state = :evaluating",
            {":evaluating": EVALUATING},
            _STATE,
        )
        return self._write(_of_attempt(change, of_execution))

    def end_again(self, digest: str, message: str) -> bool:
        """End the evaluation of a live release, which stays live. Return False if none is in progress."""
        return self._note_again(digest, f"{SERVES_ALL}; {message}", reevaluating=False)

    def restore(self, release: Release) -> None:
        """Return a live release to the hold-out set on which it has passed; an evaluation of it ends."""
        try:
            kept = dict(json.loads(release.passed or "{}"))
        except (TypeError, ValueError):
            kept = {}  # a person damaged it
        # The attempt's files are of the other set.
        known = {"holdout_key": release.passed_on, "holdout_sha256": "", "reevaluating": False}
        shown = {name: str(kept[name]) for name in ("scores", "report", "warnings") if name in kept}
        self.update(release.digest, message=SERVES_ALL, **known, **shown)

    def _note_again(self, digest: str, message: str, **fields: Any) -> bool:
        changes = {"message": message, **fields, "updated_at": int(self.now())}
        condition, values = "#state = :live AND #again = :again", {":live": LIVE, ":again": True}
        return self._write(
            self._change(digest, changes, condition, values, {**_STATE, "#again": "reevaluating"})
        )

    @property
    def declarations(self) -> Declarations:
        """Return the declarations of the owner's Release resources."""
        return Declarations(self.table, self.key(DECLARED), self.now)

    def declared(self) -> str | None:
        """Return the digest that the deployed stack declares; None before and after the stack exists."""
        newest = self.declarations.newest()
        return newest.digest if newest else None

    @contextmanager
    def creating(self, digest: str, claimant: Claimant) -> Iterator[bool]:
        """Mark a release while a step creates or claims what costs money. Yield whether the step may do that.

        Stopping an execution does not stop a running function. So a step first sets this mark, and then reads
        whether its resource still declares releases; a deletion first stores that it does not, and then reads
        the marks (`is_creating`). One of them sees the other, so nothing is created or claimed for a resource
        after its deletion's last read. Without the mark, since the release's item was deleted, nothing is
        created either.

        Raises:
            NotYetError: The construct was moved, and only the resource under its other logical id declares
                releases. A function gets that id with its next configuration.
        """
        marked = self._note_creating(digest, int(self.now()) + CREATING_SECONDS)
        try:
            yield marked and self._may_create(claimant)
        finally:
            self._note_creating(digest, 0)

    def _may_create(self, claimant: Claimant) -> bool:
        declared = self.declarations.claimants()
        if declared and claimant not in declared:
            raise NotYetError(
                f"Resource {claimant.logical_id} does not declare releases of {self.owner}: "
                f"{declared[-1].logical_id} does. The next call of this step acts for that one."
            )
        return declared != []

    def is_creating(self) -> bool:
        """Return whether a step of any release may be creating a resource at this moment."""
        now = self.now()
        # A later time than a step's own is damage, and would never pass.
        return any(now < release.creating_until <= now + CREATING_SECONDS for release in self.all())

    def _note_creating(self, digest: str, until: int) -> bool:
        return self._write(self._change(digest, {"creating_until": until}, "attribute_exists(id)"))

    def route(self) -> Route:
        """Return the route, read consistently; the empty route if there is none or the item is malformed."""
        return Route.from_item(self._item(ROUTE))

    def effective_route(self) -> Route:
        """Return the route with every share that routers may use.

        If the item is malformed, routers continue with the last route that they read, so the shares of the
        history's last copy are added to those that can still be read.
        """
        route = self.route()
        if route.problem is None and route.version:
            return route
        last = self._last_copy()
        if route.problem is None:
            # Without an item, the next write takes the switch of heads from the history.
            return replace(route, head_off=route.head_off or last.head_off)
        # A head decides nothing here: a share whose head is damaged is the same share.
        known = {replace(share, head=None) for share in route.shares}
        rest = tuple(share for share in last.shares if replace(share, head=None) not in known)
        return replace(route, shares=(*route.shares, *rest), head_off=route.head_off or last.head_off)

    def set_route(self, shares: tuple[Share, ...], *, after: Route, reason: str) -> Route:
        """Replace the route that was read as `after`, and return the new one.

        Raises RouteChangedError if it changed since.
        """
        route = self._next(shares, after, reason)
        self._transact(self._replacing(route, after))
        return route

    def switch_heads(self, *, off: bool, after: Route, reason: str) -> Route:
        """Replace the route that was read as `after` by one with its shares, and heads switched off or on.

        Raises RouteChangedError if it changed since.
        """
        route = replace(self._next(after.shares, after, reason), head_off=off)
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
        """Move a release and replace the route in one transaction. Return whether both were done.

        The result is False if the release is in a final state. `retiring` is the digest of the release that
        is replaced. Raises RouteChangedError if the route changed since it was read as `after`.
        """
        writes = self._replacing(self._next(shares, after, f"release {digest}: {message}"), after)
        moved = len(writes)
        writes.append({"Update": self._moving(digest, state, message, fields)})
        if retiring:
            last = {
                "digest": retiring,
                "state": RETIRED,
                "message": f"replaced by release {digest}",
                "updated_at": int(self.now()),
            }
            writes.append({"Update": self._change(retiring, last)})
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
        """Send all requests to a retired release again, and retire others, in one transaction.

        Return False if the release is not retired any more. Raises RouteChangedError if the route changed
        since it was read as `after`, or one of the releases to retire has started another attempt since it
        was read.
        """
        now = int(self.now())
        share = replace(self.get(digest) or Release(digest), endpoint=endpoint).share(1.0)
        writes = self._replacing(self._next((share,), after, reason), after)
        moved = len(writes)
        live = {
            "state": LIVE,
            "message": f"{SERVES_ALL}, restored by a rollback",
            "endpoint": endpoint,
            "rolled_back": 0,
            "reevaluating": False,
            **fields,
            "updated_at": now,
        }
        writes.append({"Update": self._change(digest, live, "#state = :retired", {":retired": RETIRED})})
        for release in retiring:
            last = {
                "state": RETIRED,
                "message": f"{BY_HAND}, to release {digest}; {release.next_start}",
                "rolled_back": now,
                "updated_at": now,
            }
            change = self._change(release.digest, last, "attribute_exists(id)")
            writes.append({"Update": _of_attempt(change, release.execution)})
        return self._transact_unless_refused(writes, moved)

    def move_endpoint(self, digest: str, endpoint: str, reason: str) -> bool:
        """Move the live release to another endpoint of the same model. Return whether it is still live.

        Raises RouteChangedError if the route changed meanwhile.
        """
        route = self.route()
        live = route.live
        if live is None or live.digest != digest:
            return False
        if live.endpoint != endpoint:
            shares = tuple(replace(s, endpoint=endpoint) if s == live else s for s in route.shares)
            self.set_route(shares, after=route, reason=reason)
        return True

    def withdraw(self, digest: str, reason: str) -> None:
        """Give a candidate's share back to the live release.

        The live release's own share stays: it is only ever replaced, so no failure, not even of that release,
        removes a working endpoint. If the item is malformed, the share is removed from the route that routers
        still use, see `effective_route`.
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
        raise RouteChangedError(
            f"The share of release {digest} could not be removed: the route keeps changing."
        )

    def _items(self, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self.table.meta.client.get_paginator("scan").paginate(
            TableName=self.table.name, ConsistentRead=True
        )
        for page in pages:
            yield from (item for item in page["Items"] if str(item["id"]).startswith(self.key(prefix)))

    def _item(self, name: str) -> dict[str, Any] | None:
        key = {"id": self.key(name)}
        item: dict[str, Any] | None = self.table.get_item(Key=key, ConsistentRead=True).get("Item")
        return item

    def key(self, name: str) -> str:
        """Return the key of one of the owner's items: `route`, `declared`, `release@<digest>`."""
        return item_key(self.owner, name)

    def _next(self, shares: tuple[Share, ...], after: Route, reason: str) -> Route:
        # If the version can't be read, or the item is gone, count on from the copies: reusing a number would
        # overwrite one of them. Of a broken item, the last copy also has the switch of heads.
        last = after if after.version and not after.problem else self._last_copy()
        return Route(
            version=(after.version or last.version) + 1,
            shares=shares,
            updated_at=int(self.now()),
            reason=reason,
            head_off=after.head_off or last.head_off,
        )

    def _last_copy(self) -> Route:
        """Return the newest route of the history; the empty route if there is none."""
        copies = (Route.from_item(item) for item in self._items(ROUTE_COPY))
        return max(copies, key=lambda copy: copy.version, default=Route())

    def _replacing(self, route: Route, after: Route) -> list[dict[str, Any]]:
        item = {"id": self.key(ROUTE), **route.to_item()}
        put: dict[str, Any] = {"Item": item, "ExpressionAttributeNames": {"#version": "version"}}
        read = after.version or None if after.stored is None else after.stored
        if read is None:
            # There is no item, or a person removed its version.
            put["ConditionExpression"] = "attribute_not_exists(#version) OR attribute_type(#version, :null)"
            put["ExpressionAttributeValues"] = {":null": "NULL"}
        else:
            put["ConditionExpression"] = "#version = :read"
            put["ExpressionAttributeValues"] = {":read": read}
        writes = [{"Put": put}, {"Put": {"Item": {**item, "id": self._copy(route)}}}]
        if after.version and not after.problem:
            # Its copy is now an old one. A put, because an update would create an item if there is no copy.
            end = {TIME_TO_LIVE: int(self.now()) + COPY_SECONDS}
            writes.append({"Put": {"Item": {"id": self._copy(after), **after.to_item(), **end}}})
        return writes

    def _copy(self, route: Route) -> str:
        """Return the key of a route's copy."""
        return self.key(f"{ROUTE_COPY}{route.version:09d}")

    def _moving(self, digest: str, state: str, message: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the write that moves a release, unless it does not exist or is in a final state."""
        final = {f":final{index}": name for index, name in enumerate(sorted(FINAL))}
        changes = {"state": state, "message": message, **fields, "updated_at": int(self.now())}
        condition = f"attribute_exists(id) AND NOT #state IN ({', '.join(final)})"
        return self._change(digest, changes, condition, final)

    def _write(self, change: dict[str, Any]) -> bool:
        """Write one item. Return False if its condition does not hold."""
        try:
            with_retries(
                lambda: self.table.update_item(**change),
                retryable=lambda error: code(error) == "TransactionConflictException",
                seconds=_CONFLICT_SECONDS,
            )
        except ClientError as error:
            if code(error) == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def _transact_unless_refused(self, writes: list[dict[str, Any]], number: int) -> bool:
        """Make all writes or none. Return False if the condition of write `number` does not hold."""
        try:
            self._transact(writes)
        except RouteChangedError as error:
            if number in error.refused:
                return False
            raise
        return True

    def _transact(self, writes: list[dict[str, Any]]) -> None:
        """Make all writes or none; the first replaces the route.

        Raises RouteChangedError with the writes whose condition did not hold. A conflict with another
        transaction, and throttling, raise it as well: the caller reads the route and decides again.
        """
        items = [{kind: {**w, "TableName": self.table.name} for kind, w in write.items()} for write in writes]
        try:
            self.table.meta.client.transact_write_items(TransactItems=items)
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

    def _change(
        self,
        digest: str,
        fields: Mapping[str, Any],
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return UpdateItem's parameters, with placeholders for names: `state` and others are reserved.

        `values` and `names` are those of the condition.
        """
        change: dict[str, Any] = {
            "Key": {"id": self.key(f"{RELEASE}{digest}")},
            "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in fields),
            "ExpressionAttributeNames": {**{f"#{name}": name for name in fields}, **(names or {})},
            "ExpressionAttributeValues": {**{f":{name}": v for name, v in fields.items()}, **(values or {})},
        }
        if condition:
            change["ConditionExpression"] = condition
        return change


def _of_attempt(change: dict[str, Any], execution: str) -> dict[str, Any]:
    """Return UpdateItem's parameters, limited to the attempt of this execution."""
    return {
        **change,
        "ConditionExpression": f"{change['ConditionExpression']} AND {_SAME_ATTEMPT}",
        "ExpressionAttributeNames": {**change["ExpressionAttributeNames"], "#execution": "execution"},
        "ExpressionAttributeValues": {
            **change["ExpressionAttributeValues"],
            ":of_execution": execution,
            ":string": "S",
        },
    }
