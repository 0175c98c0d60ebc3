"""Nothing that is printed controls a terminal, whatever texts come from elsewhere."""

from __future__ import annotations

import ast
import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from operate import errors, printing
from operate.console import Terminal, say, wide
from operate.errors import OperateError, guarded
from stacks.settings import PROJECT, Problem, SettingsError
from tests.unit.hostile import GOOD, HOSTILE, controls

PRINTING = ("operate/printing.py", "operate/console.py")
# Writes JSON with escapes, and paths of this project.
OTHERS = ("stacks/keys.py", "stacks/settings/__main__.py")
FOLDERS = ("operate", "local", "stacks")
# A program of its own, whose output is a log.
EMULATOR = PROJECT / "local" / "emulator"


def prints(path: Path) -> Iterator[str]:
    """Yield the places of a module that print by themselves."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "Console", "rich.print", "Console.print", "traceback.print_exc") or (
                called.startswith(("sys.stdout.", "sys.stderr.")) and not called.endswith("fileno")
            ):
                yield f"{path.relative_to(PROJECT)}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "rich.markup":
            yield f"{path.relative_to(PROJECT)}:{node.lineno}"


def test_everything_is_printed_in_one_place() -> None:
    modules = [
        path
        for folder in FOLDERS
        for path in sorted((PROJECT / folder).rglob("*.py"))
        if EMULATOR not in path.parents
    ]
    found = [place for path in [*modules, PROJECT / "app.py"] for place in prints(path)]
    assert [place for place in found if not place.startswith((*PRINTING, *OTHERS))] == []
    assert len(found) > 2  # the search finds something


def printed(text: object, *, terminal: bool = True) -> str:
    out = io.StringIO()
    Terminal(file=out, force_terminal=terminal, width=200).print(text)
    return out.getvalue()


def cell(text: str | Text) -> Table:
    table = Table("a")
    table.add_row(text)
    return table


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_shows_what_would_control_it(*, terminal: bool) -> None:
    for shown in (HOSTILE, Text(HOSTILE, "bold"), cell(HOSTILE), cell(Text(HOSTILE))):
        found = printed(shown, terminal=terminal)
        assert controls(found) == []
        assert "\\u001b]0;title" in found
    # No markup either.
    assert "[red]end" in printed(HOSTILE, terminal=terminal)


def test_a_column_is_as_wide_as_what_it_shows() -> None:
    lines = printed(cell("\x1b[31m" * 5)).splitlines()
    assert "\\u001b[31m" * 5 in lines[3]
    assert len(set(map(len, lines))) <= 2  # colours of the head


@pytest.mark.parametrize("text", GOOD)
def test_a_console_leaves_other_texts_alone(text: str) -> None:
    out = io.StringIO()
    say(Terminal(file=out, width=200), text)
    assert out.getvalue() == f"{text}\n".expandtabs(8)


PROSE = "    The stack declares no release, since its deployment hasn't ended or it is being deleted."
WRAPPED = [
    "    The stack declares no release, since",
    "    its deployment hasn't ended or it is",
    "    being deleted.",
]
WHOLE = (
    "    log /home/somebody/distilled-router/.local/logs/emulator.log",
    "Next: make dataset-check FILE=training.jsonl HOLDOUT=holdout.jsonl",
    "  aws bedrock delete-custom-model --model-identifier arn:aws:bedrock:us-east-1::x",
    "     grep -n EDIT: tasks/support/task.toml tasks/support/robustness.toml",
    "s3://video-router-dev-data/releases/video-router-dev/ce0a60b736ca-1/report.html",
)


@pytest.mark.parametrize("terminal", [True, False])
def test_prose_is_wrapped_at_words_on_a_terminal_only(*, terminal: bool) -> None:
    out = io.StringIO()
    say(Terminal(file=out, force_terminal=terminal, width=40), PROSE, "", f"{PROSE}\n{PROSE}")
    whole = WRAPPED if terminal else [PROSE]
    assert out.getvalue().splitlines() == [*whole, "", *whole, *whole]


@pytest.mark.parametrize("line", WHOLE)
def test_commands_and_long_words_are_printed_whole(line: str) -> None:
    out = io.StringIO()
    say(Terminal(file=out, force_terminal=True, width=40), line)
    assert out.getvalue() == f"{line}\n"


def test_an_item_of_a_list_is_indented_below_its_mark() -> None:
    out = io.StringIO()
    say(
        Terminal(file=out, force_terminal=True, width=40),
        "  - Valid output for 90.0% of 252 queries; 98.0% wanted.",
    )
    assert out.getvalue() == "  - Valid output for 90.0% of 252\n    queries; 98.0% wanted.\n"


def test_a_command_in_prose_is_not_broken() -> None:
    out = io.StringIO()
    text = "Check the list with `make releases ENV=dev`, then run it again. See the runbook."
    say(Terminal(file=out, force_terminal=True, width=40), text)
    assert out.getvalue().splitlines() == [
        "Check the list with",
        "`make releases ENV=dev`, then run it",
        "again. See the runbook.",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_errors_are_wrapped_at_words_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    printing.err(PROSE)
    assert capsys.readouterr().err.splitlines() == (WRAPPED if terminal else [PROSE])


def test_a_live_table_shows_what_would_control_it() -> None:
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, width=200)
    with Live(cell(HOSTILE), console=console) as live:
        live.update(cell(Text(HOSTILE)))
    assert controls(out.getvalue()) == []


def test_a_wide_console_prints_to_the_same_file() -> None:
    out = io.StringIO()
    wide(Terminal(file=out, width=20)).print(cell(HOSTILE))
    assert "title" in out.getvalue()
    assert controls(out.getvalue()) == []


def test_plain_output_shows_what_would_control_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printing.out(HOSTILE)
    printing.err(HOSTILE)
    out, err = capsys.readouterr()
    assert out == err
    assert controls(out) == []
    assert "\\u001b]0;title" in out


@pytest.mark.parametrize("kind", ["operate", "settings", "interrupted"])
def test_errors_show_what_would_control_a_terminal(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text(HOSTILE.replace("\ud800", ""), encoding="utf-8")

    def fail() -> int:
        if kind == "operate":
            raise OperateError(f"cdk diff failed: {HOSTILE}", log=log, advice=HOSTILE)
        if kind == "settings":
            raise SettingsError([Problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE)])
        raise KeyboardInterrupt(HOSTILE)

    assert guarded(fail) != 0
    err = capsys.readouterr().err
    assert "\\u001b]0;title" in err
    assert controls(err) == []


def test_a_reader_that_has_ended_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "drop_output", lambda: None)  # it closes the output of this process
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w") as pipe:

        def command() -> int:
            say(Terminal(file=pipe), "a line")
            return 1

        assert guarded(command) == 0
