"""`python -m operate.dataset_check`: check a file of rows or of raw queries, by the rules of a deployment.

Nothing leaves this machine. The exit status is 0 if the file may be used, 1 if it is refused, and 2 if it
can't be checked at all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.data.dataset_rules import ROWS, check_dataset
from distilled_router.data.findings import Report
from distilled_router.data.line_rules import lines
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import Task, TaskError
from operate.errors import LocalError
from stacks.settings.labelling import Labelling

# Wide enough for the tables where no terminal says how wide it is.
PLAIN_WIDTH = 120
# Of raw queries, where no hold-out file is named: the settings' default.
HELD_OUT: float = Labelling.model_fields["holdout_share"].default
_KEPT = 10
_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Checked:
    """A report, what the first file was checked as, and the real names of the files in the report."""

    report: Report
    kind: str
    names: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line names; print what was found, and return the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        found = check(options.file, options.holdout, options.method, options.task, options.keep)
        show(found, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    except (LocalError, TaskError) as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has heard enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if found.report.ok else 1


def check(
    file: Path, holdout: Path | None, method: str, task: Path | None = None, keep: int = _KEPT
) -> Checked:
    """Check a file, and a hold-out file with it.

    Args:
        file: rows for given labels, or raw queries: its first line says what it is.
        holdout: rows that the release will be judged on.
        method: `distillation` or `fine_tuning`.
        task: folder of the task that the rows are for, by default the project's.
        keep: how many findings of each rule to keep.

    Raises:
        LocalError: A file can't be read, or is empty.
        TaskError: The task can't be used.
    """
    report, routed = Report(keep), Task.load(task)
    names = {"training": str(file), "queries": str(file), "holdout": str(holdout)}
    with ExitStack() as opened:
        chunks = _chunks(file, opened)
        held_out = lines(_chunks(holdout, opened)) if holdout else None
        try:
            first = next(chunks)
            content = lines(itertools.chain([first], chunks))
            are_queries = _are_queries(file, first)
            if are_queries:
                checks = QueryCheck(routed, report)
                for _ in checks.read(str(file), content):
                    pass
                checks.finish(method, 1.0 if holdout else 1 - HELD_OUT)
                check_dataset(None, held_out, routed, method, report=report)
            else:
                check_dataset(content, held_out, routed, method, report=report)
        except OSError as error:
            raise LocalError(f"{file} can't be read to its end: {error.strerror}.") from error
    return Checked(report, "raw queries" if are_queries else f"rows for {method}", names)


def show(found: Checked, console: Console) -> None:
    """Print the verdict, how often each rule is broken, and where."""
    report, names = found.report, found.names

    def say(text: str = "", style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    read = " and ".join(f"{names.get(name, name)} ({count:,} lines)" for name, count in report.rows.items())
    counts = f"{_counted(report.errors, 'error')} and {_counted(report.warnings, 'warning')}"
    verdict = "Usable" if report.ok else "Refused"
    say(
        f"{verdict} as {found.kind}: {counts} in {read or names['training']}.",
        "green" if report.ok else "red",
    )
    if not report.counts:
        return
    say()
    table = Table(
        "rule", "severity", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.add_column("count", justify="right")
    for (severity, rule), count in sorted(report.counts.items(), key=lambda item: (item[0][0], -item[1])):
        table.add_row(rule, severity, f"{count:,}")
    console.print(table, highlight=False)
    say()
    kept: Counter[str] = Counter()
    for finding in sorted(report.findings, key=lambda found: found.severity):
        kept[finding.rule] += 1
        place = names.get(finding.file, finding.file)
        place += f":{finding.line}" if finding.line else ""
        message = finding.message.replace("of training:", f"of {names['training']}:")
        say(f"{place} {finding.severity} {finding.rule}: {message}")
    if sum(kept.values()) < report.counts.total():
        say(f"\nOf each rule the first {report.keep} are shown; --keep shows more.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m operate.dataset_check", description=__doc__)
    parser.add_argument("file", type=Path, help="training rows (.jsonl), or raw queries (.txt or .jsonl)")
    parser.add_argument("--holdout", type=Path, help="rows that the release will be judged on (.jsonl)")
    parser.add_argument("--method", choices=list(ROWS), default="distillation", help="how the job learns")
    parser.add_argument("--task", type=Path, help="folder of the task, by default task/")
    parser.add_argument("--keep", type=int, default=_KEPT, help="findings to show of each rule")
    return parser


def _chunks(path: Path, opened: ExitStack) -> Iterator[bytes]:
    """A file's content; at least one chunk."""
    try:
        file = opened.enter_context(path.open("rb"))
        first = file.read(_CHUNK_BYTES)
    except FileNotFoundError as error:
        raise LocalError(f"{path} doesn't exist.") from error
    except IsADirectoryError as error:
        raise LocalError(f"{path} is a folder: name a file in it.") from error
    except OSError as error:
        raise LocalError(f"{path} can't be read: {error.strerror}.") from error
    if not first:
        raise LocalError(f"{path} is empty.")
    return itertools.chain([first], iter(lambda: file.read(_CHUNK_BYTES), b""))


def _are_queries(path: Path, first: bytes) -> bool:
    """Whether a file holds raw queries; what can't be recognised is checked as rows."""
    if path.suffix == ".txt":
        return True
    try:
        row = json.loads(first.lstrip().split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "query" in row and "messages" not in row


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


if __name__ == "__main__":
    sys.exit(main())
