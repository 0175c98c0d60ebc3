"""Circuit breaker: stop calling a model endpoint that does not answer, to save requests its timeout."""

from __future__ import annotations

FAILURES = 5
OPEN_SECONDS = 10.0


class Breaker:
    """The circuit breaker of one model endpoint.

    It opens after FAILURES failures in a row. After OPEN_SECONDS it lets one call through as a probe; while
    the probe runs, other calls are refused. The probe's result closes the breaker or opens it again.
    """

    def __init__(self) -> None:
        """Create a closed breaker."""
        self._failures = 0
        self._opened_at: float | None = None

    def allows(self, now: float) -> bool:
        """Return whether the endpoint may be called now. If so, call it: this call may be the probe."""
        if self._opened_at is None:
            return True
        # The lower bound closes it again if the clock was set back.
        if 0 <= now - self._opened_at < OPEN_SECONDS:
            return False
        self._opened_at = now
        return True

    def succeeded(self) -> None:
        """Record that the endpoint answered, even with invalid output."""
        self._failures, self._opened_at = 0, None

    def failed(self, now: float) -> bool:
        """Record that the endpoint did not answer. Return whether the breaker is open now."""
        self._failures += 1
        if self._failures < FAILURES:
            return False
        self._opened_at = now
        return True
