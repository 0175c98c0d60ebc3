"""Which queries this process has counted for the canary analysis of the current rollout."""

from __future__ import annotations

import threading

from distilled_router.release.route import Route

# Queries that are remembered for each release. One takes about a hundred bytes.
MOST = 20_000


class FirstSights:
    """Remembers the queries that were counted, so that each counts once for a release.

    Equal queries get equal answers, so a query that is asked again is no new evidence. Only hashes are kept.
    """

    def __init__(self) -> None:
        """Count nothing before a rollout begins."""
        self._lock = threading.Lock()
        self._candidates: frozenset[str] = frozenset()
        # Dictionaries, since they keep the order: the oldest are forgotten first.
        self._seen: dict[str, dict[int, None]] = {}

    def follow(self, route: Route) -> None:
        """Forget everything if another candidate is rolled out, or none."""
        candidates = frozenset(share.digest for share in route.shares if share.expires_at is not None)
        if candidates != self._candidates:
            self._candidates, self._seen = candidates, {}

    def count(self, release: str, query: str) -> int | None:
        """Return how many queries were counted for a release before this one; None if it does not count."""
        if not self._candidates:
            return None
        key = hash(query)
        with self._lock:
            seen = self._seen.setdefault(release, {})
            if key in seen:
                return None
            before = len(seen)
            seen[key] = None
            if before >= MOST:
                del seen[next(iter(seen))]
        return before
