"""Check a file of training rows or of raw queries, as a deployment does.

Nothing leaves this machine. With --environment, the gate's and the labelling's
settings count, too. The exit status is 0 if the file can be used, 1 if it is
refused, and 2 if it can't be checked at all.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.table import Table

from cdk_distilled_router.needs import needs as needs_of
from cdk_distilled_router.props import GateProps, LabellingProps
from distilled_router.data.dataset_rules import ROWS, check_dataset
from distilled_router.data.findings import Report
from distilled_router.data.line_rules import lines
from distilled_router.data.preflight import Needs, shown
from distilled_router.data.query_rules import KINDS, QueryCheck
from distilled_router.links import inside
from distilled_router.task.task import Task, TaskError
from operate.console import Terminal, say
from operate.console import console as terminal
from operate.errors import OperateError, drop_output
from stacks.settings import PROJECT, Settings, load

EXAMPLES = """\
  python -m operate dataset-check data/training.jsonl
  python -m operate dataset-check data/training.jsonl \\
    --holdout data/holdout.jsonl --method fine_tuning
  python -m operate dataset-check data/sample_queries.txt
"""
PLAIN_WIDTH = 120
UNCHECKED = 2
# The share of raw queries that is held out if no hold-out file is given: the default of the settings.
HELD_OUT: float = LabellingProps.model_fields["holdout_share"].default
# The gate's margin by default.
MARGIN: float = GateProps.model_fields["non_inferiority_margin"].default
_KEPT = 10
_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Checked:
    """A report, the kind of the first file, the real names of the files, and what the hold-out set shows."""

    report: Report
    kind: str
    names: dict[str, str]
    told: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "file", type=Path, help="training rows (.jsonl), or raw queries (.txt, .csv, .tsv, .jsonl)"
    )
    parser.add_argument(
        "--holdout", type=Path, metavar="FILE", help="rows that the release is evaluated on (.jsonl)"
    )
    parser.add_argument(
        "--environment",
        metavar="NAME",
        help="environment whose gate, student and labelling the data is for; by default only general rules",
    )
    parser.add_argument(
        "--method",
        choices=list(ROWS),
        help="method of the job; by default the environment's, or distillation",
    )
    parser.add_argument("--task", type=Path, metavar="FOLDER", help="folder of the task; by default task/")
    parser.add_argument(
        "--keep",
        type=int,
        metavar="COUNT",
        default=_KEPT,
        help=f"findings to show for each rule; by default {_KEPT}",
    )


def run(options: argparse.Namespace) -> int:
    """Check the files and print the findings; return 0 if they can be used, 1 if they are refused."""
    try:
        settings = load(options.environment) if options.environment else None
        needs = _needs(settings, options.method, is_holdout_given=options.holdout is not None)
        task = options.task or (settings.task_folder if settings else None)
        found = check(options.file, options.holdout, needs, task, options.keep)
    except (OperateError, TaskError) as error:
        raise OperateError(str(error), status=UNCHECKED) from error
    try:
        show(found, terminal(PLAIN_WIDTH))
    except BrokenPipeError:
        drop_output()
    return 0 if found.report.ok else 1


def check(
    file: Path, holdout: Path | None, needs: Needs, task: Path | None = None, keep: int = _KEPT
) -> Checked:
    """Check a file, and a hold-out file with it.

    Args:
        file: Training rows or raw queries; its first line tells which.
        holdout: Rows that the release is evaluated on.
        needs: What job and gate need of raw queries; of rows, the shares of the parts don't count.
        task: Folder of the task, by default the project's.
        keep: How many findings of each rule to keep.

    Raises:
        OperateError: A file can't be read, or is empty.
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
                checks.finish(needs)
                check_dataset(None, held_out, routed, needs.method, needs=needs, report=report)
            else:
                needs = replace(needs, holdout_share=0.0)
                check_dataset(content, held_out, routed, needs.method, needs=needs, report=report)
        except OSError as error:
            raise OperateError(f"{file} can't be read to its end: {error.strerror}.") from error
    kind = "raw queries" if are_queries else f"rows for {needs.method}"
    told = [shown(report, needs)]
    if any(rule == "system" for _, rule in report.counts):
        told.append(
            f"The prompt is that of the task {routed.name}. If the rows are of another one,\n"
            "give its folder, such as TASK=tasks/support."
        )
    return Checked(report, kind, names, "\n".join(filter(None, told)))


def _needs(settings: Settings | None, method: str | None, *, is_holdout_given: bool) -> Needs:
    """Return what an environment needs of raw queries; what every one does without a gate if None."""
    if settings is None:
        share = 0.0 if is_holdout_given else HELD_OUT
        return Needs(method=method or "distillation", margin=MARGIN, holdout_share=share)
    found = needs_of(
        settings.distillation, settings.gate, settings.labelling, is_holdout_given=is_holdout_given
    )
    return replace(found, method=method or found.method)


def show(found: Checked, console: Terminal) -> None:
    """Print the result, how often each rule is broken, and where."""
    report, names = found.report, found.names

    read = " and ".join(f"{names.get(name, name)} ({count:,} lines)" for name, count in report.rows.items())
    counts = f"{_counted(report.errors, 'error')} and {_counted(report.warnings, 'warning')}"
    result = "Usable" if report.ok else "Refused"
    told = f"{result} as {found.kind}: {counts} in {read or names['training']}."
    console.print(told, style="green" if report.ok else "red", soft_wrap=not console.is_terminal)
    if found.told:
        say(console, found.told)
    if not report.counts:
        return
    console.print()
    table = Table(
        "rule", "severity", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0)
    )
    table.add_column("count", justify="right")
    for (severity, rule), count in sorted(report.counts.items(), key=lambda item: (item[0][0], -item[1])):
        table.add_row(rule, severity, f"{count:,}")
    console.print(table)
    console.print()
    kept: Counter[str] = Counter()
    for finding in sorted(report.findings, key=lambda found: found.severity):
        kept[finding.rule] += 1
        place = names.get(finding.file, finding.file)
        place += f":{finding.line}" if finding.line else ""
        message = finding.message.replace("of training:", f"of {names['training']}:")
        told = f"{place} {finding.severity} {finding.rule}: {message}{report.repeated(finding)}"
        # A terminal breaks lines within words.
        console.print(told, soft_wrap=not console.is_terminal)
    if kept.total() + report.repeats.total() < report.counts.total():
        say(console, f"\nThe first {report.keep} findings of each rule are shown; KEEP=100 shows more.")


def _chunks(path: Path, opened: ExitStack) -> Iterator[bytes]:
    """Return the content of a file in chunks, at least one."""
    absolute = path.absolute()
    try:
        # A file elsewhere was named on purpose.
        own = inside(PROJECT, absolute) if absolute.is_relative_to(PROJECT) else path
        file = opened.enter_context(own.open("rb"))
        first = file.read(_CHUNK_BYTES)
    except FileNotFoundError as error:
        raise OperateError(f"{path} doesn't exist.") from error
    except IsADirectoryError as error:
        raise OperateError(f"{path} is a folder: name a file in it.") from error
    except OSError as error:
        raise OperateError(f"{path} can't be read: {error.strerror}.") from error
    if not first:
        raise OperateError(f"{path} is empty.")
    return itertools.chain([first], iter(lambda: file.read(_CHUNK_BYTES), b""))


def _are_queries(path: Path, first: bytes) -> bool:
    """Tell whether a file holds raw queries; a file of unknown form is checked as rows."""
    if path.suffix.lower() in KINDS and path.suffix.lower() != ".jsonl":
        return True
    try:
        row = json.loads(first.lstrip().split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "query" in row and "messages" not in row


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
