"""Hold a process to a fraction of a CPU, as Lambda holds a function by its memory.

Lambda gives a function a share of CPU time in proportion to its memory, one CPU at 1,769 MB (Lambda developer
guide, "memory"); 384 MB are 0.22 of one. Containers do this by a cgroup's quota. Where tests run, cgroups may
not be writable, so a thread does the same with signals: in each period, the process is stopped once it has
used its quota of CPU time, and continues in the next one.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import TracebackType

PERIOD, TICK = 0.05, 0.002


class Throttle:
    """Within this context, a process gets `share` of a CPU at most."""

    def __init__(self, pid: int, share: float) -> None:
        """Take a child process that has not been waited for, so that its id is not used again."""
        self._pid, self._quota = pid, share * PERIOD
        # Linux: the clock of another process's CPU time, as clock_getcpuclockid() computes it.
        self._clock = (~pid << 3) | 2
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Throttle:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        # What a period used beyond its quota is taken from the next ones, as a cgroup does.
        allowed = time.clock_gettime(self._clock)
        while not self._over.is_set():
            ends = time.monotonic() + PERIOD
            allowed = max(allowed, time.clock_gettime(self._clock) - self._quota) + self._quota
            self._signal(signal.SIGCONT)
            while (left := ends - time.monotonic()) > 0:
                if time.clock_gettime(self._clock) >= allowed:
                    self._signal(signal.SIGSTOP)
                    self._over.wait(left)
                    break
                time.sleep(min(TICK, left))
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._pid, number)
