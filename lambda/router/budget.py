"""The time that one request may take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# A call that hangs keeps its worker until its socket times out; a query leaves at most three behind. Threads
# come into being as they are needed: one for a query at a time, some dozen for a batch.
_WORKERS = ThreadPoolExecutor(max_workers=128, thread_name_prefix="router")

# Environments that SnapStart restores share one snapshot, and so the state of an ordinary generator.
jitter = random.SystemRandom().uniform


class OutOfTimeError(Exception):
    """The call did not answer in the time that was left for it."""


class Budget:
    """A request's time. Every wait of the request is taken from it."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, whole: float | None = None
    ) -> None:
        """Start the clock. Seconds may be fewer than a `whole` budget has, where the function is about to be
        stopped or a batch about to end.
        """
        self.seconds = max(seconds, 0.0)
        self.whole = max(self.seconds, whole or 0.0)
        self._clock = clock
        self._started = clock()

    @property
    def is_cut(self) -> bool:
        """Whether less than a request's usual time was there from the start."""
        return self.seconds < self.whole

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(self.seconds - self.spent, 0.0)

    def call(self, function: Callable[[], T], at_most: float) -> T:
        """Call a function that may block, and wait for it no longer than `at_most` and the budget allow.

        On another thread, because socket timeouts bound neither a name look-up nor a TLS handshake nor an
        answer that arrives byte by byte. The call that was given up ends by its own timeout.

        Raises OutOfTimeError, or what the function raises.
        """
        future = _WORKERS.submit(function)
        try:
            return future.result(min(at_most, self.remaining))
        except TimeoutError:
            future.cancel()
            raise OutOfTimeError from None
