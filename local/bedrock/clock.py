"""The clocks that move resources through their states."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

#: On this day Nova Pro, Lite and Micro are active and Nova Premier is past its end of life.
MANUAL_START = datetime(2026, 11, 24, tzinfo=UTC).timestamp()


class Clock(Protocol):
    """The interface of a clock."""

    @property
    def waits_for_work(self) -> bool:
        """Whether a state change runs the job's work first (manual clock), or a thread does."""

    def now(self) -> float:
        """Return the seconds since the epoch."""

    def scaled(self, seconds: float) -> float:
        """Return a duration of Bedrock as it is on this clock, in seconds."""


class ManualClock:
    """A clock that stands still until a test advances it."""

    waits_for_work = True

    def __init__(self, start: float = MANUAL_START) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return the seconds since the epoch, as advanced so far."""
        return self._now

    def scaled(self, seconds: float) -> float:
        """Return the duration unchanged: tests advance the clock by it."""
        return seconds

    def advance(self, seconds: float) -> None:
        """Advance the clock by some seconds."""
        if seconds < 0:
            raise ValueError(f"a clock can't be advanced by {seconds} seconds; give 0 or more")
        with self._lock:
            self._now += seconds


class ScaledClock:
    """Real time with durations divided by a scale.

    Timestamps are real, because callers compare them with their own clocks.
    """

    waits_for_work = False

    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f"the time scale must be above 0, not {scale}")
        self.scale = scale

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def scaled(self, seconds: float) -> float:
        """Return the duration divided by the scale."""
        return seconds / self.scale
