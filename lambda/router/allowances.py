"""What one caller may take of a model's quota, so that others find some of it left."""

from __future__ import annotations

import threading
from collections import OrderedDict

from router.breaker import Breaker, Permit, Result

# Of the quota's minute, in one execution environment. The rest is for other callers.
PART = 0.75
# In so many seconds, an allowance that shrank doubles. It keeps so much of its size, so that it is whole five
# minutes after a throttling of any length.
DOUBLE_SECONDS, LEAST_SIZE = 60.0, 1 / 32
# Allowances that one environment keeps: a model for each, so 256 callers of two models. An allowance takes
# less than 1 KB. A caller that is dropped begins anew.
MOST_ALLOWANCES = 512


class Allowance:
    """One caller's use of one model.

    A token bucket holds half a minute's part of the quota and fills with the other half in a minute, so that
    any minute has `PART` of the quota at most. A circuit breaker counts only this caller's throttled calls:
    who used up a quota must not take the model from others. Each time it opens, the bucket becomes half as
    large, because other environments have buckets for this caller, too, and none knows how many. Its methods
    may be called by several threads.
    """

    def __init__(self, a_minute: float, now: float) -> None:
        """Create a full bucket for so many calls a minute."""
        self._throttling = Breaker()
        self._whole = self._size = self._tokens = max(a_minute / 2, 1.0)
        self._at = now
        self._lock = threading.Lock()

    def enter(self, now: float) -> Permit | None:
        """Return a permit to call the model now, or None if the caller has used up its allowance."""
        permit = self._throttling.enter(now)
        if permit is not None and not self._take(now):
            self._throttling.leave(permit, "unknown", now)
            return None
        return permit

    def leave(self, permit: Permit, result: Result, now: float) -> bool:
        """Record a call's result, `failed` if it was throttled. Return whether this opened the circuit."""
        opened = self._throttling.leave(permit, result, now)
        if opened:
            with self._lock:
                self._size = max(self._size / 2, self._whole * LEAST_SIZE, 1.0)
                self._tokens = min(self._tokens, self._size)
        return opened

    def _take(self, now: float) -> bool:
        with self._lock:
            # A clock that was set back fills nothing; after ten minutes, the bucket is whole and full anyway.
            elapsed, self._at = min(max(now - self._at, 0.0), 600.0), now
            self._size = min(self._size * 2 ** (elapsed / DOUBLE_SECONDS), self._whole)
            self._tokens = min(self._tokens + elapsed * self._size / 60, self._size)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class Allowances:
    """The allowances of the callers seen last, a fixed number of them."""

    def __init__(self, quota: int) -> None:
        """Allow each caller `PART` of `quota`, the requests that a model takes a minute."""
        self._a_minute = quota * PART
        self._known: OrderedDict[tuple[str, str], Allowance] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, model: str, caller: str, now: float) -> Allowance:
        """Return a caller's allowance of a model."""
        key = (model, caller)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = Allowance(self._a_minute, now)
                if len(self._known) > MOST_ALLOWANCES:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return found

    def __len__(self) -> int:
        return len(self._known)
