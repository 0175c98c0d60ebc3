"""Which Release resources declare which digest, for one owner.

Usually one resource does. While a construct is moved to another logical id, two do: the new one is created
before the old one is deleted, or is deleted itself when the update is rolled back. So each resource has a
declaration of its own, and the newest one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import code
from distilled_router.bedrock.ownership import Claimant

_LIST, _VERSION = "declared_by", "version"
_TRIES = 10


@dataclass(frozen=True)
class Declaration:
    """The digest that a Release resource declares, and CloudFormation's request that declared it."""

    stack_id: str
    logical_id: str
    digest: str
    request_id: str = ""

    @property
    def claimant(self) -> Claimant:
        """Return the resource as what claims paid resources."""
        return Claimant(self.stack_id, self.logical_id)


class Declarations:
    """Reads and writes an owner's item of declarations, the oldest first."""

    def __init__(self, table: Any, key: str, now: Callable[[], float]) -> None:
        """Wrap the releases table; `key` is the item's key."""
        self._table, self._key, self._now = table, key, now

    def all(self) -> list[Declaration]:
        """Return all declarations; those that a person damaged are left out."""
        return _declarations(self._item())

    def newest(self) -> Declaration | None:
        """Return the declaration that counts, or None."""
        return next(reversed(self.all()), None)

    def claimants(self) -> list[Claimant] | None:
        """Return the resources that declare releases, the newest last; None if nothing readable says so."""
        item = self._item()
        found = [declaration.claimant for declaration in _declarations(item)]
        return found if found or (item or {}).get(_LIST) == [] else None

    def is_closed(self) -> bool:
        """Return whether the last declaration was removed: nothing may be created any more."""
        item = self._item()
        return item is not None and item.get(_LIST) == []

    def declare(self, claimant: Claimant, digest: str, request_id: str = "") -> list[Declaration]:
        """Add a resource's declaration as the newest one; return what was declared before."""
        new = Declaration(claimant.stack_id, claimant.logical_id, digest, request_id)
        return self._change(lambda known: [*(d for d in known if d.claimant != claimant), new])

    def restore(self, claimant: Claimant, request_id: str, before: list[Declaration]) -> None:
        """Undo a declaration by a request that CloudFormation has superseded, unless a newer one counts."""

        def undone(known: list[Declaration]) -> list[Declaration]:
            is_newest = bool(known) and (known[-1].claimant, known[-1].request_id) == (claimant, request_id)
            return list(before) if is_newest else known

        self._change(undone)

    def remove(self, claimant: Claimant) -> None:
        """Remove a resource's declaration: it is being deleted."""
        self._change(lambda known: [d for d in known if d.claimant != claimant])

    def _change(self, change: Callable[[list[Declaration]], list[Declaration]]) -> list[Declaration]:
        """Replace the list, and return the previous one. Repeats while other writers interfere."""
        for left in range(_TRIES, 0, -1):
            item = self._item()
            known = _declarations(item)
            try:
                self._put(item, change(known))
            except ClientError as error:
                if code(error) != "ConditionalCheckFailedException" or left == 1:
                    raise
            else:
                return known
        raise AssertionError("unreachable")

    def _put(self, read: Mapping[str, Any] | None, declared: list[Declaration]) -> None:
        digest = declared[-1].digest if declared else ""
        item: dict[str, Any] = {"id": self._key, "digest": digest, _LIST: [asdict(one) for one in declared]}
        item["updated_at"] = int(self._now())
        put: dict[str, Any] = {"ExpressionAttributeNames": {"#version": _VERSION}}
        if read and _VERSION in read:
            put["ConditionExpression"] = "#version = :read"
            put["ExpressionAttributeValues"] = {":read": read[_VERSION]}
        else:
            put["ConditionExpression"] = "attribute_not_exists(#version)"
        self._table.put_item(Item={**item, _VERSION: f"{item['updated_at']}-{_next(read)}"}, **put)

    def _item(self) -> dict[str, Any] | None:
        item: dict[str, Any] | None = self._table.get_item(Key={"id": self._key}, ConsistentRead=True).get(
            "Item"
        )
        return item


def _next(read: Mapping[str, Any] | None) -> int:
    """Return a number that differs from that of the version that was read."""
    last = str((read or {}).get(_VERSION, "")).rpartition("-")[2]
    return int(last) + 1 if last.isascii() and last.isdigit() else 1


def _declarations(item: Mapping[str, Any] | None) -> list[Declaration]:
    listed = (item or {}).get(_LIST)
    found = [_declaration(one) for one in listed] if isinstance(listed, list) else []
    return [one for one in found if one]


def _declaration(entry: Any) -> Declaration | None:
    if not isinstance(entry, Mapping):
        return None
    values: dict[str, Any] = {name: entry.get(name) for name in Declaration.__dataclass_fields__}
    is_whole = all(isinstance(value, str) for value in values.values())
    return Declaration(**values) if is_whole else None
