"""The route: which model endpoints serve, and the share of requests that each gets.

The rollout writes it, the router reads it, and both use this code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

# Names of an owner's items in the releases table; what ends in `@` is followed by a version, a digest or a
# window. Permissions are granted by these names.
ROUTE = "route"
ROUTE_COPY = "route@"
RELEASE = "release@"
# Attribute of the releases table: the epoch second after which DynamoDB deletes an item.
TIME_TO_LIVE = "delete_after"
DECLARED = "declared"
WAIT = "wait@"
# A release's classification head, in the folder of its report.
HEAD_FILE = "head.bin"
# From here on, not every whole number is a float.
_INEXACT = 2**53
_POINTS = _INEXACT


@dataclass(frozen=True, slots=True)
class HeadFile:
    """The file of a release's classification head: its key in the data bucket, and its SHA-256 (hex)."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Share:
    """A release's model endpoint and its share of the requests.

    Attributes:
        digest: the release.
        endpoint: ARN of the deployment or the provisioned throughput.
        share: part of the requests, 0 to 1.
        expires_at: epoch second at which a candidate's share ends; None for the live release.
        head: the release's classification head; None if it has none.
    """

    digest: str
    endpoint: str
    share: float
    expires_at: int | None = None
    head: HeadFile | None = None

    def counts(self, now: float) -> bool:
        """Return whether the share has not expired at `now` (epoch seconds)."""
        return self.expires_at is None or self.expires_at > now


@dataclass(frozen=True, slots=True)
class Route:
    """The route item. The empty route, `Route()`, sends every request to the base model.

    `head_off` is an operator's switch: routers then use no classification head.
    """

    version: int = 0
    shares: tuple[Share, ...] = ()
    updated_at: int = 0
    reason: str = ""
    head_off: bool = False
    # What is wrong with the item that the route was read from; never written back.
    problem: str | None = field(default=None, compare=False)
    # The version in the item, whatever a person made of it; a writer replaces the item that it has read.
    stored: Any = field(default=None, compare=False)

    @classmethod
    def from_item(cls, item: Mapping[str, Any] | None) -> Route:
        """Read the route from a table item; None is the empty route.

        A malformed item never raises: invalid shares are dropped, an invalid item gives the empty route, and
        `problem` says what was found. An invalid head is no head, and its share still serves. The version is
        kept if it can be read, so a writer can replace the item.
        """
        if item is None:
            return cls(reason="no route item")
        if not isinstance(item, Mapping):
            return cls._broken(f"the route item is a {type(item).__name__}, expected a map")
        stored, updated_at = item.get("version"), whole(item.get("updated_at", 0))
        version = whole(stored)
        switch = item.get("head_off")
        # A person who damaged it meant to switch heads off.
        head_off = switch is not None and switch is not False
        if version is None:
            problem = "the route item's version is not a whole number"
            return cls._broken(problem, stored=stored, head_off=head_off)
        listed = item.get("shares", [])
        if not isinstance(listed, list | tuple):
            problem = f"the route item's shares are a {type(listed).__name__}, not a list"
            return cls._broken(problem, version, stored, head_off)
        read = [_share(entry) for entry in listed]
        dropped = [str(place) for place, share in enumerate(read) if share is None]
        return cls(
            version=version,
            shares=tuple(share for share in read if share is not None),
            updated_at=updated_at or 0,
            reason=str(item.get("reason", "")),
            head_off=head_off,
            problem=f"malformed shares dropped, at {', '.join(dropped)}" if dropped else None,
            stored=stored,
        )

    @classmethod
    def _broken(cls, problem: str, version: int = 0, stored: Any = None, head_off: bool = False) -> Route:
        return cls(version=version, reason=problem, head_off=head_off, problem=problem, stored=stored)

    def to_item(self) -> dict[str, Any]:
        """Return the item to write without its key, with numbers as DynamoDB's client takes them."""
        shares: list[dict[str, Any]] = []
        for share in self.shares:
            entry: dict[str, Any] = {
                "digest": share.digest,
                "endpoint": share.endpoint,
                "share": Decimal(str(share.share)),
            }
            if share.expires_at is not None:
                entry["expires_at"] = Decimal(share.expires_at)
            if share.head is not None:
                entry["head"] = {"key": share.head.key, "sha256": share.head.sha256}
            shares.append(entry)
        return {
            "version": Decimal(self.version),
            "shares": shares,
            "updated_at": Decimal(self.updated_at),
            "reason": self.reason,
            **({"head_off": True} if self.head_off else {}),
        }

    @property
    def live(self) -> Share | None:
        """Return the live release's share. If an item holds several, the largest of them, then the first."""
        candidates = [share for share in self.shares if share.expires_at is None]
        return max(candidates, key=lambda share: share.share, default=None)

    def choose(self, key: str, now: float) -> Share | None:
        """Return the share that answers this key at `now`; None is the base model.

        A candidate's digest and a key give a point between 0 and 1. So a query stays with a candidate while
        its share grows, and the next candidate begins with other queries. A candidate gets its part of what
        the ones before it leave.
        """
        left = 1.0
        for share in self.shares:
            if share.expires_at is not None and share.counts(now):
                if _point(share.digest, key) * left < share.share:
                    return share
                left -= share.share
        return self.live

    def digests(self) -> frozenset[str]:
        """Return the digests of all releases in the route, also of expired shares."""
        return frozenset(share.digest for share in self.shares)


def item_key(owner: str, name: str) -> str:
    """Return the key of an owner's item in the releases table: `search/route`."""
    return f"{owner}/{name}"


def releases_folder(owner: str) -> str:
    """Return the folder of an owner's reports in the data bucket."""
    return f"releases/{owner}/"


def _point(release: str, key: str) -> float:
    digest = hashlib.blake2b(f"{release}\0{key}".encode("utf-8", "replace"), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / _POINTS


def _share(entry: object) -> Share | None:
    """Return a share from its map, or None: an unreadable share must not get requests."""
    if not isinstance(entry, Mapping):
        return None
    digest, endpoint, part = entry.get("digest"), entry.get("endpoint"), _number(entry.get("share"))
    if not isinstance(digest, str) or not digest or not isinstance(endpoint, str) or not endpoint:
        return None
    if part is None or not 0 <= part <= 1:
        return None
    head = _head(entry.get("head"))
    if "expires_at" not in entry:
        return Share(digest, endpoint, part, head=head)
    end = whole(entry["expires_at"])
    # A candidate with an unreadable expiry must not be taken for the live release.
    return None if end is None else Share(digest, endpoint, part, end, head)


def _head(entry: object) -> HeadFile | None:
    """Return a head from its map, or None: a share without a head still serves."""
    if not isinstance(entry, Mapping):
        return None
    key, sha256 = entry.get("key"), entry.get("sha256")
    if not isinstance(key, str) or not key or not isinstance(sha256, str) or not sha256:
        return None
    return HeadFile(key, sha256)


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


def whole(value: object) -> int | None:
    """Return a number of a table item that is whole and from 0 to the largest exact one, or None."""
    number = _number(value)
    return int(number) if number is not None and 0 <= number < _INEXACT and number.is_integer() else None
