"""Circuit breaker: stop calling a model endpoint that does not answer, to save requests its timeout."""

from __future__ import annotations

import threading
from typing import Literal

FAILURES = 5
OPEN_SECONDS = 10.0


type Permit = Literal["call", "probe"]
"""Leave to call an endpoint once. Its holder reports the result to the breaker, whatever happens."""

type Result = Literal["answered", "failed", "unknown"]
"""What a call says about its endpoint; `unknown` if it ended for a reason that lies in its query."""


class Breaker:
    """The circuit breaker of one model endpoint. Its methods may be called by several threads.

    It opens after FAILURES failures in a row. After OPEN_SECONDS it lets one call through as a probe; while
    the probe runs, other calls are refused. The probe's result closes the breaker or opens it again.
    """

    def __init__(self) -> None:
        """Create a closed breaker."""
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._is_probing = False

    def enter(self, now: float) -> Permit | None:
        """Return a permit to call the endpoint now, or None if it must not be called."""
        with self._lock:
            if self._opened_at is None:
                return "call"
            # The lower bound probes at once if the clock was set back.
            if self._is_probing or 0 <= now - self._opened_at < OPEN_SECONDS:
                return None
            self._is_probing = True
            return "probe"

    def leave(self, permit: Permit, result: Result, now: float) -> bool:
        """Record a call's result. Return whether it opened the breaker."""
        with self._lock:
            if permit == "probe":
                self._is_probing = False
            elif self._opened_at is not None:
                # The call began before the breaker opened, so the probe knows better.
                return False
            if result == "answered":
                self._failures, self._opened_at = 0, None
            if result != "failed":
                return False
            self._failures += 1
            if self._failures < FAILURES:
                return False
            self._opened_at = now
            return True
