"""The clocks on which states move."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

#: A day on which Nova Pro, Lite and Micro are active and Nova Premier has ended.
MANUAL_START = datetime(2026, 11, 24, tzinfo=UTC).timestamp()


class Clock(Protocol):
    """What the stand-in asks of a clock."""

    @property
    def waits_for_work(self) -> bool:
        """Whether a state change waits for the work behind it (a manual clock), or shows up after it."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def lasting(self, seconds: float) -> float:
        """How long something of this real duration takes on this clock."""


class ManualClock:
    """Stands still until a test advances it."""

    waits_for_work = True

    def __init__(self, start: float = MANUAL_START) -> None:
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch, as advanced so far."""
        return self._now

    def lasting(self, seconds: float) -> float:
        """Durations are as they are: tests advance by them."""
        return seconds

    def advance(self, seconds: float) -> None:
        """Move on by some seconds."""
        if seconds < 0:
            raise ValueError(f"a clock goes forward only, not by {seconds} seconds")
        with self._lock:
            self._now += seconds


class ScaledClock:
    """Real time, on which what takes Bedrock an hour takes an hour divided by the scale.

    Timestamps stay real: callers compare them with their own clocks.
    """

    waits_for_work = False

    def __init__(self, scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f"the time scale must be above 0, not {scale}")
        self.scale = scale

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def lasting(self, seconds: float) -> float:
        """The duration divided by the scale."""
        return seconds / self.scale
