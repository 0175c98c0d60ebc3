"""The work of a job: steps that run in a thread, or on demand with a manual clock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from local.bedrock.clock import Clock
from local.bedrock.training_data import DataError

INTERNAL_ERROR = "Encountered an internal error when processing the request."


class Work:
    """A sequence of steps; after a failure the rest is skipped."""

    def __init__(self, clock: Clock, *steps: Callable[[], None]) -> None:
        self._clock = clock
        self._steps = steps
        self._done = [threading.Event() for _ in steps]
        self._finished = [0.0 for _ in steps]
        self._thread: threading.Thread | None = None
        self.failure: str | None = None

    def start(self) -> None:
        """Start all steps in a thread. With a clock that waits for work, `finished` runs them instead."""
        if not self._clock.waits_for_work:
            self._thread = threading.Thread(target=self._run, name="bedrock-work", daemon=True)
            self._thread.start()

    def finished(self, step: int) -> float | None:
        """Return the time at which a step finished, or None while it runs."""
        if self._thread is None and not self._done[step].is_set():
            self._do(step)
        return self._finished[step] if self._done[step].is_set() else None

    def _run(self) -> None:
        for step in range(len(self._steps)):
            self._do(step)

    def _do(self, step: int) -> None:
        try:
            if self.failure is None:
                self._steps[step]()
        except DataError as error:
            self.failure = str(error)[:2048]
        except Exception as error:
            # The job must end with a failure message after any exception in the thread.
            self.failure = f"{INTERNAL_ERROR} ({type(error).__name__}: {error})"[:2048]
        finally:
            # First, since a reader may ask as soon as the step is done.
            self._finished[step] = 0.0 if self._clock.waits_for_work else self._clock.now()
            self._done[step].set()
