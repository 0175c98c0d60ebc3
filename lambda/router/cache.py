"""In-memory cache of answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached answer, its source, and the reason why a better source did not answer."""

    weights: dict[str, float]
    source: str
    reason: str | None = None


class AnswerCache:
    """LRU cache, bounded by number of entries and by age.

    The key is the normalised query and the release that the route chose for it, so that a candidate's answer
    is not returned after its share has expired.
    """

    def __init__(self, entries: int) -> None:
        """Create a cache of at most `entries` entries; 0 turns it off."""
        self._limit = entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str | None], tuple[float, float, Entry]] = OrderedDict()

    def get(self, query: str, release: str | None, now: float) -> Entry | None:
        """Return the cached answer, or None if there is none or it is too old."""
        key = (query, release)
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            stored_at, seconds, entry = found
            if not 0 <= now - stored_at < seconds:
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

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
