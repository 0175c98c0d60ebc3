"""What one caller may take of a model's quota, so that others find some of it left."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Literal

from router.breaker import Breaker, Permit, Result

# Share of the quota that a caller gets in any minute, in one execution environment.
PART = 0.75
# Share of that part that may be used at once; the rest comes evenly over the minute.
BURST = 1 / 6
# Seconds in which an allowance that was halved doubles, and the share of its size that it keeps: it is whole
# again five minutes after any throttling.
DOUBLE_SECONDS, LEAST_SIZE = 60.0, 1 / 32
# Share of that part: a caller that wants less is throttled because of others, and keeps its allowance.
MODEST = 1 / 8
# Queries of one batch have slightly different times. A clock that goes back further was set.
CLOCK_SECONDS = 60.0
# Seconds between two lines of the log about one allowance.
LOG_SECONDS = 60.0
# Allowances that one environment keeps, one for each caller and model: 256 callers of two models. Each takes
# less than 1 KB. A caller whose allowance was dropped gets a new one.
MOST_ALLOWANCES = 512


Refusal = Literal["throttled", "over_allowance"]
"""Why a caller may not call a model now: Bedrock has throttled the caller's calls, or it used up its part."""


class RefusedError(Exception):
    """A caller may not call a model now; `reason` says why."""

    def __init__(self, reason: Refusal) -> None:
        """Take the reason of the answer."""
        super().__init__(reason)
        self.reason = reason


class Allowance:
    """One caller's use of one model.

    A token bucket holds `BURST` of the caller's part and fills with the rest in a minute, so the caller gets
    at most `PART` of the quota in any minute. A circuit breaker counts this caller's throttled calls, so that
    a caller that used up a quota doesn't take the model from others. Each time it opens for a caller that
    wants much, the bucket becomes half as large: other environments have buckets for the same caller, and
    none knows how many. Its methods may be called by several threads.
    """

    def __init__(self, a_minute: float, now: float) -> None:
        """Create a full bucket for `a_minute` calls a minute."""
        self._throttling = Breaker()
        self._a_minute = a_minute
        self._whole = self._size = self._tokens = max(a_minute * BURST, 1.0)
        # Calls wanted in about the last minute, those refused here among them.
        self._wanted = 0.0
        self._at = now
        self._logged_at = -math.inf
        self._lock = threading.Lock()

    def enter(self, now: float) -> Permit:
        """Return a permit to call the model now.

        Raises:
            RefusedError: Bedrock has throttled the caller, or the caller has used up its allowance.
        """
        with self._lock:
            self._pass(now)
            self._wanted += 1
        permit = self._throttling.enter(now)
        if permit is None:
            raise RefusedError("throttled")
        if not self.take(now):
            self._throttling.leave(permit, "unknown", now)
            raise RefusedError("over_allowance")
        return permit

    def take(self, now: float) -> bool:
        """Take one call from the bucket, also for a retry. Return whether there was one."""
        with self._lock:
            self._pass(now)
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def leave(self, permit: Permit, result: Result, now: float) -> bool:
        """Record a call's result, `failed` if it was throttled. Return whether this opened the circuit."""
        opened = self._throttling.leave(permit, result, now)
        if opened:
            with self._lock:
                if self._wanted > self._a_minute * MODEST:
                    self._size = max(self._size / 2, self._whole * LEAST_SIZE, 1.0)
                    self._tokens = min(self._tokens, self._size)
        return opened

    def is_to_log(self, now: float) -> bool:
        """Return whether to log a refusal now: once in `LOG_SECONDS`, however many there are."""
        with self._lock:
            if 0 <= now - self._logged_at < LOG_SECONDS:
                return False
            self._logged_at = now
            return True

    def _pass(self, now: float) -> None:
        """Fill the bucket for the time since the last call; an earlier time fills nothing."""
        elapsed = now - self._at
        if -CLOCK_SECONDS <= elapsed <= 0:
            return
        # After ten minutes, the bucket is whole and full anyway.
        elapsed, self._at = min(max(elapsed, 0.0), 600.0), now
        self._wanted *= math.exp(-elapsed / 60)
        self._size = min(self._size * 2 ** (elapsed / DOUBLE_SECONDS), self._whole)
        fills = self._a_minute * (1 - BURST) * self._size / self._whole
        self._tokens = min(self._tokens + elapsed * fills / 60, self._size)


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
