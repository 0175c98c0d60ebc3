"""Decide that a resource does not exist, although reads may lag behind writes.

Bedrock's reads are eventually consistent: a resource that was created a moment ago may not be found, or not
listed, for up to a minute. Wherever absence decides about money, one answer is not enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 8.0


def confirmed[T](
    read: Callable[[], T | None],
    seconds: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T | None:
    """Return what `read` returns; None only if every read over these seconds returned None."""
    end, pause = now() + seconds, FIRST_PAUSE_SECONDS
    while True:
        found = read()
        left = end - now()
        if found is not None or left <= 0:
            return found
        sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
