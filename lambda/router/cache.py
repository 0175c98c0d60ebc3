"""Answers that were given, kept for the next who asks the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer, the source that gave it, and what kept a better one from giving it."""

    weights: dict[str, float]
    source: str
    reason: str | None = None


class AnswerCache:
    """Least recently used first out, bounded by number and by age.

    Keyed by the normalised query and the release that its route chooses, so that an answer of a candidate
    whose share has expired is never given again.
    """

    def __init__(self, entries: int) -> None:
        """Hold at most so many entries; 0 turns the cache off."""
        self._limit = entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str | None], tuple[float, float, Entry]] = OrderedDict()

    def get(self, query: str, release: str | None, now: float) -> Entry | None:
        """The answer, if there is one that is young enough."""
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
        """Keep an answer for so many seconds."""
        if self._limit <= 0 or seconds <= 0:
            return
        with self._lock:
            self._entries[query, release] = (now, seconds, entry)
            self._entries.move_to_end((query, release))
            if len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
