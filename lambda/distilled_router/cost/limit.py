"""Refuse what would exceed an owner's limit, before anything is paid for.

The limit is for all that an owner commits to pay within a period: customization jobs and the teacher's
labels, each by the upper bound of its estimate. One item of the stack's requests table, the ledger, holds
what was committed. Its writes are conditional, so two deployments at once can't both take what is left.

The table is deleted with its stack, an older version doesn't write the ledger, and a person may damage it.
Bedrock's own list of jobs survives all that, since no operation deletes a job (botocore: bedrock has none).
A job that is only in that list counts as much as the new one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from botocore.exceptions import ClientError

from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import NotYetError, ResourceError, code
from distilled_router.bedrock import jobs
from distilled_router.bedrock.naming import owner_of
from distilled_router.cost.estimate import LABELS, Estimate, Spec, Volume, check, dollars, estimate
from distilled_router.cost.prices import Prices
from distilled_router.release.route import item_key
from distilled_router.task.task import Task

_COMMITTED = "committed"
_DAY = 86_400
# The longest period that the settings allow (`JobProps.maximum_cost_days`); older entries are dropped.
_KEPT_DAYS = 366
# Tries of a write that other writers got ahead of.
_TRIES = 20
# Amounts that a message lists; its text has 1,500 bytes (`custom_resource.REASON_BYTES`).
_MOST_LISTED = 5


@dataclass(frozen=True)
class Limit:
    """US dollars that an owner may commit within a number of days."""

    usd: float
    days: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Read a custom resource's properties."""
        return cls(float(given["MaximumCostUsd"]), int(given.get("MaximumCostDays", 30)))


class Entry(NamedTuple):
    """An amount in US dollars, and the epoch second at which it was committed."""

    usd: float
    at: int


@dataclass(frozen=True)
class Spending:
    """What an owner has committed to pay, and may commit.

    Attributes:
        table: the stack's requests table, a DynamoDB table resource.
        bedrock: lists the owner's jobs.
        owner: whose spending is limited.
        now: returns epoch seconds.
    """

    table: Any
    bedrock: Any
    owner: str
    now: Callable[[], float] = time.time

    def covers(self, job: str, usd: float, limit: Limit) -> bool:
        """Return whether a job needs no check: its amount was committed, or it exists.

        A rollback returns to such a job, and must not be refused.
        """
        live = self._live(self._read()[1], limit)
        is_committed = job in live and live[job].usd >= _cents(usd)
        return is_committed or jobs.find(self.bedrock, job) is not None

    def knows(self, start: str, limit: Limit) -> bool:
        """Return whether an amount was committed whose name begins with `start`."""
        return any(name.startswith(start) for name in self._live(self._read()[1], limit))

    def note(self, job: str, usd: float, limit: Limit) -> None:
        """Raise a committed job's amount without asking the limit: its settings may allow more retries."""
        for _ in range(_TRIES):
            before, entries = self._read()
            known = self._live(entries, limit).get(job)
            if known is None or known.usd >= _cents(usd):
                return
            if self._write({**entries, job: Entry(_cents(usd), known.at)}, before):
                return
        raise self._busy()

    def check(self, amounts: Mapping[str, float], limit: Limit, *, unknown_usd: float) -> None:
        """Raise ResourceError if amounts and what was committed before exceed the limit.

        A larger amount replaces the one of the same name. A job that the ledger doesn't know counts as
        `unknown_usd`.
        """
        self._check(self._live(self._read()[1], limit), amounts, limit, unknown_usd)

    def commit(self, amounts: Mapping[str, float], limit: Limit, *, unknown_usd: float) -> None:
        """Commit amounts, all or none. Raise ResourceError as `check` does.

        Committing the same amounts again changes nothing, and is not refused.
        """
        for _ in range(_TRIES):
            before, entries = self._read()
            live = self._live(entries, limit)
            new = {name: usd for name, usd in amounts.items() if _cents(usd) > _usd(live, name)}
            if not new:
                return
            self._check(live, amounts, limit, unknown_usd)
            now = int(self.now())
            kept = {name: entry for name, entry in entries.items() if entry.at > now - _KEPT_DAYS * _DAY}
            if self._write({**kept, **{name: Entry(_cents(usd), now) for name, usd in new.items()}}, before):
                return
        raise self._busy()

    def _busy(self) -> NotYetError:
        return NotYetError(f"Other deployments of {self.owner} write the same ledger. Deploy again.")

    def _check(
        self, live: Mapping[str, Entry], amounts: Mapping[str, float], limit: Limit, unknown_usd: float
    ) -> None:
        others = {name: entry for name, entry in live.items() if name not in amounts}
        since = self.now() - limit.days * _DAY
        for name, at in jobs.created_since(self.bedrock, self.owner, since).items():
            if name not in live and name not in amounts:
                others[name] = Entry(_cents(unknown_usd), int(at))
        asked = {name: max(_cents(usd), _usd(live, name)) for name, usd in amounts.items()}
        past, new = sum(entry.usd for entry in others.values()), sum(asked.values())
        if round(past + new, 2) > limit.usd:
            raise ResourceError(self._refusal(others, past, asked, limit))

    def _refusal(
        self, others: Mapping[str, Entry], past: float, asked: Mapping[str, float], limit: Limit
    ) -> str:
        listed = sorted(others.items(), key=lambda item: -item[1].usd)
        shown = [f"{name} {dollars(usd)} on {_date(at)}" for name, (usd, at) in listed[:_MOST_LISTED]]
        if len(listed) > _MOST_LISTED:
            shown.append(f"{len(listed) - _MOST_LISTED} more")
        new = " and ".join(f"{name} {dollars(usd)}" for name, usd in asked.items())
        text = (
            f"This may cost {dollars(sum(asked.values()))} USD ({new}). In the last {limit.days} days "
            f"{self.owner} committed {dollars(past)} USD: {', '.join(shown) or 'nothing'}. Together that is "
            f"more than distillation.maximum_cost_usd = {limit.usd:g} in distillation.maximum_cost_days = "
            f"{limit.days}, and nothing was paid. All amounts are upper bounds, with the retries that the "
            "settings allow. "
        )
        if others:
            end = min(at for _, at in others.values()) + limit.days * _DAY
            text += f"Wait until {_date(end)}, when the first of them no longer counts; or lower the estimate"
        else:
            text += "Lower the estimate"
        return f"{text} (`make cost` shows how), or raise the limit."

    def _live(self, entries: Mapping[str, Entry], limit: Limit) -> dict[str, Entry]:
        """Return the entries of the period. A time in the future is damage, and would never pass."""
        now = self.now()
        return {name: known for name, known in entries.items() if now - limit.days * _DAY < known.at <= now}

    def _read(self) -> tuple[Any, dict[str, Entry]]:
        """Return the ledger's text, None if there is none, and its entries."""
        item = self.table.get_item(Key=self._key, ConsistentRead=True).get("Item", {})
        return item.get(_COMMITTED), dict(_entries(item.get(_COMMITTED)))

    def _write(self, entries: Mapping[str, Entry], before: Any) -> bool:
        """Replace the ledger that was read as `before`; return whether nobody else had changed it."""
        values = {":entries": json.dumps({name: entry._asdict() for name, entry in entries.items()})}
        try:
            self.table.update_item(
                Key=self._key,
                UpdateExpression="SET #committed = :entries",
                ConditionExpression=(
                    "attribute_not_exists(#committed)" if before is None else "#committed = :before"
                ),
                ExpressionAttributeNames={"#committed": _COMMITTED},
                ExpressionAttributeValues=values if before is None else {**values, ":before": before},
            )
        except ClientError as error:
            if code(error) != "ConditionalCheckFailedException":
                raise
            return False
        return True

    @property
    def _key(self) -> dict[str, str]:
        return {"id": item_key(self.owner, "spending")}


def enforce_limit(event: Event, volume: Volume, task: Task, bedrock: Any, *, labels: str = LABELS) -> None:
    """Raise ResourceError if a custom resource's data would cost more than its limit allows.

    The properties are `Cost` (a Spec as JSON), `MaximumCostUsd` and `MaximumCostDays`. Nothing is refused
    without them, if cost, digest and plan are unchanged, or if the job was committed or exists. If the Spec
    names no job, its estimate alone is compared with the limit.

    A job for given rows is committed. A job for raw queries is only checked: each execution of the labelling
    commits its own labels and the job, the labels under a name that begins with `labels`.

    A job that an earlier version created for the same model is named, with what keeps it.
    """
    given, old = event.properties, event.old_properties
    if "Cost" not in given or all(old.get(name) == given.get(name) for name in ("Cost", "Digest", "Plan")):
        return
    spec, limit = Spec(**json.loads(str(given["Cost"]))), Limit.of(given)
    try:
        _enforce(event, spec, limit, volume, task, bedrock, labels)
    except ResourceError as error:
        if spec.earlier_job and jobs.find(bedrock, spec.earlier_job):
            kept = f"An earlier version created {spec.earlier_job} for the same model. {spec.keep}."
            raise ResourceError(f"{error} {kept}") from error
        raise


def _enforce(
    event: Event, spec: Spec, limit: Limit, volume: Volume, task: Task, bedrock: Any, labels: str
) -> None:
    """Raise ResourceError as `enforce_limit` does, for a Spec that may have changed."""
    found = estimate(spec, volume, task, Prices.load())
    usd, spending = job_usd(found), None
    if spec.job and event.fence:
        spending = Spending(event.fence.table, bedrock, owner_of(spec.job))
        if spending.covers(spec.job, usd, limit):
            spending.note(spec.job, usd, limit)
            return
    if problem := check(found, limit.usd):
        raise ResourceError(problem)
    if spending is None:
        return
    if not spec.samples:
        spending.commit({spec.job: usd}, limit, unknown_usd=usd)
        return
    asked = {} if spending.knows(labels, limit) else {labels: labels_usd(found)}
    spending.check({**asked, spec.job: usd}, limit, unknown_usd=usd)


def labels_usd(found: Estimate) -> float:
    """Return the most that the labelling costs, in US dollars."""
    return sum(line.at_most.usd for line in found.once.lines if line.name == LABELS)


def job_usd(found: Estimate) -> float:
    """Return the most that the job costs with its retries, in US dollars."""
    return found.once.at_most_usd - labels_usd(found)


def _entries(text: Any) -> list[tuple[str, Entry]]:
    """Return the readable entries of a ledger."""
    try:
        given = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return []
    found = []
    for name, entry in given.items() if isinstance(given, dict) else ():
        try:
            usd, at = float(entry["usd"]), int(entry["at"])
        except (TypeError, ValueError, LookupError, OverflowError):
            continue
        if math.isfinite(usd) and usd >= 0:
            found.append((name, Entry(usd, at)))
    return found


def _usd(entries: Mapping[str, Entry], name: str) -> float:
    return entries[name].usd if name in entries else 0.0


def _cents(usd: float) -> float:
    """Return an amount as the ledger holds it, so that the same estimate again is not more."""
    return math.ceil(round(usd * 100, 6)) / 100


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
