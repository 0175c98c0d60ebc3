"""The route: which endpoints serve now and what share of the requests each takes.

The promotion step writes it, the router reads it, and both decide with this code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

ROUTE_ID = "route"
_POINTS = 2**53


@dataclass(frozen=True, slots=True)
class Share:
    """A release's endpoint and its share of the requests, 0 to 1.

    With `expires_at` (epoch seconds) it is a candidate's and counts only until then; without, it is the
    settled release's.
    """

    digest: str
    endpoint: str
    share: float
    expires_at: int | None = None

    def counts(self, now: float) -> bool:
        """Whether the share still counts at this time."""
        return self.expires_at is None or self.expires_at > now


@dataclass(frozen=True, slots=True)
class Route:
    """The route item. `Route()` is the empty route: every request goes to the base model."""

    version: int = 0
    shares: tuple[Share, ...] = ()
    updated_at: int = 0
    reason: str = ""
    # What was wrong with the item that this came from; never written back.
    problem: str | None = field(default=None, compare=False)

    @classmethod
    def from_item(cls, item: Mapping[str, Any] | None) -> Route:
        """The route in a table item; None is the empty route.

        An item that somebody broke by hand never raises: shares that make no sense are dropped, an item
        that makes no sense gives the empty route, and `problem` says what was found. The version is kept
        wherever it can be read, so that a writer can replace such an item.
        """
        if item is None:
            return cls(reason="no route item")
        if not isinstance(item, Mapping):
            return cls._broken(f"the route item is a {type(item).__name__}, expected a map")
        version, updated_at = _whole(item.get("version")), _whole(item.get("updated_at", 0))
        if version is None:
            return cls._broken("the route item's version is not a whole number")
        listed = item.get("shares", [])
        if not isinstance(listed, list | tuple):
            return cls._broken(f"the route item's shares are a {type(listed).__name__}, not a list", version)
        read = [_share(entry) for entry in listed]
        dropped = [str(place) for place, share in enumerate(read) if share is None]
        return cls(
            version=version,
            shares=tuple(share for share in read if share is not None),
            updated_at=updated_at or 0,
            reason=str(item.get("reason", "")),
            problem=f"malformed shares dropped, at {', '.join(dropped)}" if dropped else None,
        )

    @classmethod
    def _broken(cls, problem: str, version: int = 0) -> Route:
        return cls(version=version, reason=problem, problem=problem)

    def to_item(self) -> dict[str, Any]:
        """The item to write, numbers as DynamoDB's client takes them."""
        shares: list[dict[str, Any]] = []
        for share in self.shares:
            entry: dict[str, Any] = {
                "digest": share.digest,
                "endpoint": share.endpoint,
                "share": Decimal(str(share.share)),
            }
            if share.expires_at is not None:
                entry["expires_at"] = Decimal(share.expires_at)
            shares.append(entry)
        return {
            "id": ROUTE_ID,
            "version": Decimal(self.version),
            "shares": shares,
            "updated_at": Decimal(self.updated_at),
            "reason": self.reason,
        }

    @property
    def live(self) -> Share | None:
        """The settled release's share. Should an item hold several, the largest, then the first."""
        candidates = [share for share in self.shares if share.expires_at is None]
        return max(candidates, key=lambda share: share.share, default=None)

    def choose(self, key: str, now: float) -> Share | None:
        """The share that serves this key at this time; None is the base model.

        The same key always falls on the same point between 0 and 1, so one query sees one release, and a
        query that a candidate serves stays with it while its share grows.
        """
        point = _point(key)
        covered = 0.0
        for share in self.shares:
            if share.expires_at is not None and share.counts(now):
                covered += share.share
                if point < covered:
                    return share
        return self.live

    def digests(self) -> frozenset[str]:
        """The digests of all releases that the route names, live or expired."""
        return frozenset(share.digest for share in self.shares)


def _point(key: str) -> float:
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / _POINTS


def _share(entry: object) -> Share | None:
    """A share from its map, or None: one that can't be read must not take requests."""
    if not isinstance(entry, Mapping):
        return None
    digest, endpoint, part = entry.get("digest"), entry.get("endpoint"), _number(entry.get("share"))
    if not isinstance(digest, str) or not digest or not isinstance(endpoint, str) or not endpoint:
        return None
    if part is None or not 0 <= part <= 1:
        return None
    if "expires_at" not in entry:
        return Share(digest, endpoint, part)
    end = _whole(entry["expires_at"])
    # A candidate whose expiry can't be read must not pass for the settled release.
    return None if end is None else Share(digest, endpoint, part, end)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number.is_integer() else None
