"""Bounds on CPU time that hold on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable

# What `_work` takes on the machine on which the bounds were set.
WORK_SECONDS = 0.016


def takes_less(call: Callable[[], object], seconds: float) -> bool:
    """Return whether a call takes fewer CPU seconds, once in three times, than the bound.

    On a machine that is slower than the one on which the bounds were set, the bound is higher in proportion.
    Garbage collection may run during one of the calls; other threads do not count.
    """
    return any((taken := _seconds(call)) < seconds or taken < seconds * slowness() for _ in range(3))


def slowness() -> float:
    """Return how many times slower this machine is than the one on which the bounds were set, 1 at least."""
    return max(min(_seconds(_work) for _ in range(3)) / WORK_SECONDS, 1.0)


def _seconds(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return time.thread_time() - began


def _work() -> int:
    found: dict[str, int] = {}
    for number in range(60_000):
        words = f"word {number % 977}"
        found[words] = found.get(words, 0) + len(words.split()) + number * number % 7
    return len(found)
