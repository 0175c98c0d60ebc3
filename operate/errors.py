"""Failures of the local system, with what a person needs to go on."""

from __future__ import annotations

from pathlib import Path


class LocalError(Exception):
    """A step failed.

    Args:
        message: What failed, in one line.
        log: The log whose last lines show why.
        advice: What to do about it.
    """

    def __init__(self, message: str, *, log: Path | None = None, advice: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.advice = advice
