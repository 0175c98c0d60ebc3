"""Progress of several steps: a live table on a terminal, one line for each change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from distilled_router.visible import visible
from operate.console import Terminal

type Phase = Literal["waiting", "running", "done", "failed"]

MARKS = {"waiting": ("·", "dim"), "done": ("✓", "green"), "failed": ("✗", "red")}


@dataclass
class Row:
    """One step."""

    title: str
    phase: Phase = "waiting"
    note: str = ""
    started: float | None = None
    ended: float | None = None

    def seconds(self, now: float) -> float | None:
        """Return how long the step has taken so far, or took until it ended; None before it starts."""
        return None if self.started is None else (self.ended or now) - self.started


class Board:
    """All steps, shown as the console allows."""

    def __init__(self, console: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows: list[Row] = []
        self._console = console
        self._clock = clock
        self._began = clock()
        self._spinner = Spinner("dots")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for row in self.rows:
                if row.phase == "running":
                    self.set(row, "failed", row.note)
        if self._live:
            self._live.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the board was created."""
        return self._clock() - self._began

    def add(self, title: str, phase: Phase = "waiting") -> Row:
        """Add a row."""
        row = Row(title)
        self.rows.append(row)
        if phase != "waiting":
            self.set(row, phase)
        return row

    def set(self, row: Row, phase: Phase, note: str = "") -> None:
        """Change a row, and show it if it has changed."""
        if (row.phase, row.note) == (phase, note):
            return
        now = self._clock()
        if row.started is None and phase != "waiting":
            row.started = now
        row.ended = now if phase in ("done", "failed") else None
        row.phase, row.note = phase, note
        if self._live is None:
            self._console.print(self.line(row), soft_wrap=True)

    def line(self, row: Row) -> str:
        """Return the plain line of a row: seconds since the start, phase, title, note."""
        seconds = row.seconds(self._clock()) or 0.0
        took = f" ({seconds:.1f} s)" if row.ended and seconds >= 0.1 else ""
        note = f": {row.note}" if row.note else ""
        return f"{self.elapsed:6.1f} s  {row.phase:<7}  {row.title}{note}{took}"

    def render(self) -> Table:
        """Return the rows as a table, with the times as they are now."""
        table = Table.grid(padding=(0, 2))
        now = self._clock()
        for row in self.rows:
            seconds = row.seconds(now) or 0.0
            mark = self._spinner if row.phase == "running" else Text(*MARKS[row.phase])
            table.add_row(
                mark, row.title, Text(visible(row.note), "dim"), f"{seconds:.1f} s" if seconds >= 0.1 else ""
            )
        table.add_row("", "", "", f"{self.elapsed:.0f} s in all")
        return table
