"""The progress display while the local system starts."""

import io

import pytest

from local.progress import Board
from operate.console import Terminal
from tests.unit.hostile import HOSTILE, controls


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def board(*, terminal: bool) -> tuple[Board, Clock, io.StringIO]:
    out, clock = io.StringIO(), Clock()
    return Board(Terminal(file=out, force_terminal=terminal, width=120), clock), clock, out


def test_without_a_terminal_each_change_is_one_line() -> None:
    shown, clock, out = board(terminal=False)
    with shown:
        row = shown.add("router-data")
        shown.set(row, "running", "CREATE_IN_PROGRESS 1/3")
        shown.set(row, "running", "CREATE_IN_PROGRESS 1/3")
        clock.now += 2.5
        shown.set(row, "done", "CREATE_COMPLETE")
    assert out.getvalue().splitlines() == [
        "   0.0 s  running  router-data: CREATE_IN_PROGRESS 1/3",
        "   2.5 s  done     router-data: CREATE_COMPLETE (2.5 s)",
    ]


def test_on_a_terminal_the_table_shows_stage_and_time() -> None:
    shown, clock, out = board(terminal=True)
    with shown:
        row = shown.add("release", "running")
        shown.set(row, "running", "[evaluating] 12 of 50")
        clock.now += 7.0
        shown.set(row, "done", "live")
    text = out.getvalue()
    assert "release" in text
    assert "live" in text
    assert "7.0 s" in text


def test_running_step_is_marked_as_failed_after_an_error() -> None:
    shown, _, out = board(terminal=False)
    try:
        with shown:
            shown.add("synth", "running")
            shown.add("bootstrap")
            raise RuntimeError
    except RuntimeError:
        pass
    assert [row.phase for row in shown.rows] == ["failed", "waiting"]
    assert out.getvalue().splitlines()[-1].split()[2:] == ["failed", "synth"]


@pytest.mark.parametrize("terminal", [True, False])
def test_neither_titles_nor_notes_control_the_terminal(*, terminal: bool) -> None:
    shown, _, out = board(terminal=terminal)
    with shown:
        shown.set(shown.add(HOSTILE[:40]), "failed", HOSTILE[:60])
    assert "\\u001b]0;title" in out.getvalue()
    assert controls(out.getvalue()) == []
