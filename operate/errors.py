"""Failures of a command, and how they are explained at the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from operate import processes
from operate.printing import err

INTERRUPTED = 130


class OperateError(Exception):
    """A command failed.

    Args:
        message: What failed, in one line.
        log: The log whose last lines show why.
        advice: What to do about it.
        status: The exit status of the command.
    """

    def __init__(self, message: str, *, log: Path | None = None, advice: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.log = log
        self.advice = advice
        self.status = status


def guarded(command: Callable[[], int]) -> int:
    """Run a command, explain expected failures on stderr, and return the exit status.

    A command may raise KeyboardInterrupt with a text that says what continues without it.
    """
    try:
        return command()
    except KeyboardInterrupt as interruption:
        err(" ".join(["\nInterrupted.", *map(str, interruption.args)]))
        return INTERRUPTED
    except BrokenPipeError:
        drop_output()
        return 0
    except _expected() as error:
        return _explain(error)


def drop_output() -> None:
    """Discard what is still printed, after the reader of our output, such as `head`, has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _expected() -> tuple[type[Exception], ...]:
    """Return the errors that need no stack trace. Imported late: `--help` is quick without them."""
    from botocore.exceptions import BotoCoreError, ClientError

    from distilled_router.cost.prices import PriceError
    from distilled_router.task.task import TaskError
    from stacks.settings import SettingsError

    return OperateError, SettingsError, TaskError, PriceError, BotoCoreError, ClientError


def _explain(error: Exception) -> int:
    """Print what failed, the end of its log and what to do; return the exit status."""
    err(f"Failed: {error}")
    if not isinstance(error, OperateError):
        return 1
    if error.log and (lines := processes.tail(error.log)):
        err(f"\nThe last lines of {error.log}:\n{lines}\n")
    if error.advice:
        err(error.advice)
    return error.status
