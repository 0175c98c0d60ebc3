"""In-memory cache of answers."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass

SWEEP_SECONDS = 10.0
# Of the function's memory. A function without an answer in its cache uses some 60 MB.
MEMORY_PART = 1 / 8
# Of an entry in CPython 3.13, measured: the key's and the value's tuples, numbers and the entry itself with
# their places in the mapping, and the same for each weight. The query's text is counted exactly.
ENTRY_BYTES, WEIGHT_BYTES = 450, 45


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached answer, its source, and the reason why a better source did not answer.

    `caller` is the only caller for whom that reason holds; None if it holds for all.
    """

    weights: dict[str, float]
    source: str
    reason: str | None = None
    caller: str | None = None


class AnswerCache:
    """LRU cache, bounded by number of entries, by their bytes and by age.

    The key is the text that a model is asked, and the release that the route chose for it, so that a
    candidate's answer is not returned after its share has expired. Queries are personal data: expired entries
    are removed within SWEEP_SECONDS while there are requests.
    """

    def __init__(self, entries: int, memory_mb: int) -> None:
        """Create a cache of at most `entries` entries, in `MEMORY_PART` of this memory; 0 turns it off."""
        self._limit = entries
        self._most_bytes = int(memory_mb * 2**20 * MEMORY_PART)
        self._bytes = 0
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
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, query: str, release: str | None, entry: Entry, now: float, seconds: float) -> None:
        """Keep an answer for the given seconds."""
        if self._limit <= 0 or seconds <= 0:
            return
        key = (query, release)
        with self._lock:
            if key in self._entries:
                self._remove(key)
            self._entries[key] = (now, seconds, entry)
            self._bytes += _bytes(query, entry)
            while len(self._entries) > self._limit or self._bytes > self._most_bytes:
                self._remove(next(iter(self._entries)))

    def _remove(self, key: tuple[str, str | None]) -> None:
        _, _, entry = self._entries.pop(key)
        self._bytes -= _bytes(key[0], entry)

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
            self._remove(key)

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Return the bytes that the entries take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)


def _bytes(query: str, entry: Entry) -> int:
    return sys.getsizeof(query) + ENTRY_BYTES + WEIGHT_BYTES * len(entry.weights)


def _is_fresh(since: float, seconds: float, now: float) -> bool:
    # The lower bound ends it if the clock was set back.
    return 0 <= now - since < seconds
