"""In-memory cache of answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

SWEEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached answer, its source, and the reason why a better source did not answer."""

    weights: dict[str, float]
    source: str
    reason: str | None = None


class AnswerCache:
    """LRU cache, bounded by number of entries and by age.

    The key is the text that a model is asked, and the release that the route chose for it, so that a
    candidate's answer is not returned after its share has expired. Queries are personal data: expired entries
    are removed within SWEEP_SECONDS while there are requests.
    """

    def __init__(self, entries: int) -> None:
        """Create a cache of at most `entries` entries; 0 turns it off."""
        self._limit = entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str | None], tuple[float, float, Entry]] = OrderedDict()
        self._swept_at = 0.0

    def get(self, query: str, release: str | None, now: float) -> Entry | None:
        """Return the cached answer, or None if there is none or it is too old."""
        key = (query, release)
        with self._lock:
            self._sweep(now)
            found = self._entries.get(key)
            if found is None:
                return None
            stored_at, seconds, entry = found
            if not _is_fresh(stored_at, seconds, now):
                del self._entries[key]
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, query: str, release: str | None, entry: Entry, now: float, seconds: float) -> None:
        """Keep an answer for the given seconds."""
        if self._limit <= 0 or seconds <= 0:
            return
        with self._lock:
            self._entries[query, release] = (now, seconds, entry)
            self._entries.move_to_end((query, release))
            if len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def _sweep(self, now: float) -> None:
        """Remove expired entries, if that is due."""
        if _is_fresh(self._swept_at, SWEEP_SECONDS, now):
            return
        self._swept_at = now
        expired = [
            key
            for key, (stored_at, seconds, _) in self._entries.items()
            if not _is_fresh(stored_at, seconds, now)
        ]
        for key in expired:
            del self._entries[key]

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


def _is_fresh(since: float, seconds: float, now: float) -> bool:
    # The lower bound ends it if the clock was set back.
    return 0 <= now - since < seconds
