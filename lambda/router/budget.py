"""Time budget of one request."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# A call ends with the time that its query has for it, so there are never more than a batch asks at a time;
# only look-ups of host names may take longer. Threads start on demand.
_WORKERS = ThreadPoolExecutor(max_workers=128, thread_name_prefix="router")

# All environments that SnapStart restores share one snapshot, and with it the state of an ordinary generator.
jitter = random.SystemRandom().uniform


class OutOfTimeError(Exception):
    """The call did not return in the time left for it."""


class Budget:
    """Time budget of one request, which bounds every wait of the request."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, whole: float | None = None
    ) -> None:
        """Start the clock.

        Args:
            seconds: the time available.
            clock: returns seconds, and never goes back.
            whole: the usual budget in seconds. `seconds` is less if the function or the batch ends sooner.
        """
        self.seconds = max(seconds, 0.0)
        self.whole = max(self.seconds, whole or 0.0)
        self._clock = clock
        self._started = clock()

    @property
    def is_cut(self) -> bool:
        """Return whether the budget was smaller than usual from the start."""
        return self.seconds < self.whole

    @property
    def spent(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._started

    @property
    def remaining(self) -> float:
        """Return the seconds left, at least 0."""
        return max(self.seconds - self.spent, 0.0)

    def call(self, function: Callable[[float], T], at_most: float) -> T:
        """Call a function that may block, and return its result within `at_most` seconds and the budget.

        The function gets the seconds that it has, and must end by then. It runs on another thread, because
        nothing bounds the look-up of a host name.

        Raises OutOfTimeError, and the function's own errors.
        """
        seconds = min(at_most, self.remaining)
        ends = self._clock() + seconds
        future = _WORKERS.submit(lambda: function(max(ends - self._clock(), 0.0)))
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise OutOfTimeError from None
