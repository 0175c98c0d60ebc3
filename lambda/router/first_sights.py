"""Remember which queries this process has counted for the canary analysis of the current rollout."""

from __future__ import annotations

import threading
from enum import Enum

from distilled_router.release.route import Route

# Queries that are remembered for each release. One takes about a hundred bytes.
MOST = 20_000


class Sight(Enum):
    """How this process counts a query for a release: as its first, as another new one, or as a second time.

    Further repetitions don't count.
    """

    FIRST = 1
    NEW = 2
    AGAIN = 3


class FirstSights:
    """Remembers the queries that were counted, so that each counts once for a release.

    Equal queries get equal answers, so a query that is asked again is no new evidence. Only hashes are kept.
    """

    def __init__(self) -> None:
        """Count nothing before a rollout begins."""
        self._lock = threading.Lock()
        self._candidates: frozenset[str] = frozenset()
        # By release: whether each query was asked again. The oldest queries are forgotten first.
        self._seen: dict[str, dict[int, bool]] = {}

    def follow(self, route: Route) -> None:
        """Forget everything if another candidate is rolled out, or none."""
        candidates = frozenset(share.digest for share in route.shares if share.expires_at is not None)
        if candidates != self._candidates:
            self._candidates, self._seen = candidates, {}

    @property
    def is_counting(self) -> bool:
        """Return whether a candidate is rolled out."""
        return bool(self._candidates)

    def count(self, release: str, query: str) -> Sight | None:
        """Return how a query counts for a release; None if it does not count."""
        if not self._candidates:
            return None
        key = hash(query)
        with self._lock:
            seen = self._seen.setdefault(release, {})
            if key in seen:
                again, seen[key] = seen[key], True
                return None if again else Sight.AGAIN
            sight = Sight.NEW if seen else Sight.FIRST
            seen[key] = False
            if len(seen) > MOST:
                del seen[next(iter(seen))]
        return sight
