"""A circuit breaker: stops asking an endpoint that does not answer, so requests don't pay its timeout."""

from __future__ import annotations

FAILURES = 5
OPEN_SECONDS = 10.0


class Breaker:
    """One endpoint's. Closed until FAILURES in a row, then open for OPEN_SECONDS, then one probe decides.

    The call that finds it half-open is the probe; those beside it, of the same batch, wait for what comes of
    it.
    """

    def __init__(self) -> None:
        """Start closed."""
        self._failures = 0
        self._opened_at: float | None = None

    def allows(self, now: float) -> bool:
        """Whether the endpoint may be asked at this time; whoever is told so has to ask it."""
        if self._opened_at is None:
            return True
        # A clock that was set back must not keep it open.
        if 0 <= now - self._opened_at < OPEN_SECONDS:
            return False
        self._opened_at = now
        return True

    def succeeded(self) -> None:
        """The endpoint answered, whatever it said."""
        self._failures, self._opened_at = 0, None

    def failed(self, now: float) -> bool:
        """The endpoint did not answer. Whether this opened it, or opened it again."""
        self._failures += 1
        if self._failures < FAILURES:
            return False
        self._opened_at = now
        return True
