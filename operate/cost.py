"""Estimate what an environment costs: once, each month, for 1,000 queries.

Counts the rows of the data set and takes prices from a table in this project,
without any access to AWS. The exit status is 1 if the estimate by itself
exceeds distillation.maximum_cost_usd.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from distilled_router.cost.estimate import (
    Estimate,
    Part,
    Spec,
    Volume,
    check,
    dollars,
    each_release,
    estimate,
)
from distilled_router.cost.lines import (
    BYTES_A_TOKEN,
    BYTES_AN_ANSWER_TOKEN,
    EPOCHS,
    MARGIN,
    MOST_EPOCHS,
    MOST_PAIRS,
)
from distilled_router.cost.prices import SHOWN, Prices
from distilled_router.data.dataset_rules import lines
from distilled_router.data.findings import Report
from distilled_router.data.preflight import shown as shown_power
from distilled_router.data.query_rules import QueryCheck
from distilled_router.links import inside
from distilled_router.release.rollout import Rollout
from distilled_router.task.task import Task
from evaluation.grades import instructions
from operate import environment
from operate.console import Terminal, say
from operate.console import console as terminal
from operate.errors import OperateError
from stacks import preflight
from stacks.costs import spec
from stacks.settings import PROJECT, Settings, is_s3, load

EXAMPLES = """\
  python -m operate cost --environment dev
  python -m operate cost --environment dev --queries 10000
"""
ASSUMED_QUERIES = 1_000
_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Counted:
    """The amount of data, and a sentence about it."""

    volume: Volume
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument(
        "--queries",
        type=_number,
        metavar="COUNT",
        help="assume this many rows or queries, not those of the data set",
    )


def run(options: argparse.Namespace) -> int:
    """Print the estimate; return 1 if it exceeds the environment's limit."""
    settings = load(options.environment)
    counted = count(settings, PROJECT, options.queries)
    found = estimate(spec(settings), counted.volume, Task.load(settings.task_folder), Prices.load())
    show(settings, counted, found, for_each_release(settings, counted.volume), terminal())
    say_needs(settings, PROJECT, terminal())
    return 1 if check(found, settings.distillation.maximum_cost_usd) else 0


def say_needs(settings: Settings, project: Path, console: Terminal) -> None:
    """Print what job and gate lack in the data on this machine, and what the hold-out set shows."""
    try:
        report = preflight.check(settings, with_families=True, project=project)
    except OSError as error:
        say(
            console,
            f"Can't check whether the data is enough for job and gate: {error.filename}: {error.strerror}.",
        )
        return
    dataset = settings.dataset
    given = (dataset.logs, dataset.queries, dataset.training, dataset.holdout)
    if any(is_s3(location) for location in given):
        say(
            console,
            "Data in S3 is not checked here. The deployment checks whether it is enough for job and gate; to "
            f"check a local copy, run make dataset-check FILE=... FOR={settings.file}.",
        )
    for finding in report.by_weight():
        say(console, f"{finding.severity}: {finding}")
    if told := shown_power(report, preflight.needs(settings)):
        say(console, told)


def for_each_release(settings: Settings, volume: Volume) -> Part:
    """Return what each release costs besides its job: the probes of its rollout, and the judge if set."""
    rollout, task = Rollout.of(settings.rollout.to_function()), Task.load(settings.task_folder)
    return each_release(
        spec(settings),
        volume,
        task,
        Prices.load(),
        probes=rollout.probes * len(rollout.rounds),
        judge=settings.evaluation.judge,
        instructions=instructions(task),
    )


def count(settings: Settings, project: Path, queries: int | None = None) -> Counted:
    """Count an environment's training rows or raw queries.

    Args:
        settings: The environment's settings.
        project: The folder that paths in the settings are relative to.
        queries: Assume this many; if the file is on this machine, its queries tell their average length.

    Raises:
        OperateError: The file can't be read, or holds no rows.
    """
    dataset = settings.dataset
    raw = dataset.is_curated
    location = str(dataset.logs or (dataset.queries if raw else dataset.training))
    what = "different logged queries" if dataset.logs else "queries" if raw else "rows"
    if dataset.source == "file":
        return _of_file(settings, project, location, what, queries)
    number = queries or ASSUMED_QUERIES
    text = f"{location}: {number:,} {what}, as --queries says"
    if not queries:
        text = (
            f"{location} is not on this machine, so the number of {what} is unknown. The figures are for "
            f"{number:,}, each with an answer; give the real number with --queries"
        )
    return Counted(Volume(queries=number), text)


def _of_file(settings: Settings, project: Path, location: str, what: str, queries: int | None) -> Counted:
    try:
        with inside(project, location).open("rb") as file:
            chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
            if what == "queries":
                volume, unread = _of_queries(location, lines(chunks), settings)
            else:
                volume, unread = _of_rows(lines(chunks))
    except OSError as error:
        raise OperateError(f"{location} can't be read: {error.strerror}.") from error
    if not volume.queries:
        raise OperateError(f"{location} contains no readable {what}.")
    text = f"{location}: {volume.queries:,} {what}"
    if volume.unlabelled:
        text += f", {volume.unlabelled:,} of them without an answer"
    if unread:
        text += f", and {unread:,} unusable lines, which are not counted"
    if queries:
        part = queries / volume.queries
        text = f"{queries:,} {what} as in {text}"
        volume = Volume(
            queries=queries,
            unlabelled=round(volume.unlabelled * part),
            query_bytes=round((volume.query_bytes or 0) * part),
        )
    return Counted(volume, text)


def _of_queries(name: str, content: Iterable[bytes], settings: Settings) -> tuple[Volume, int]:
    """Return the volume of a file's different queries, and how many lines have none that can be labelled."""
    report = Report()
    check = QueryCheck(Task.load(settings.task_folder), report)
    return Volume.of(check.read(name, content)), report.errors


def _of_rows(rows: Iterable[bytes]) -> tuple[Volume, int]:
    """Return the volume of training rows, and how many lines are unreadable."""
    unlabelled = unread = 0

    def texts() -> Iterator[str]:
        nonlocal unlabelled, unread
        for line in rows:
            if not line.strip():
                continue
            try:
                query, answered = _query(json.loads(line))
            except (ValueError, LookupError, TypeError, RecursionError):
                unread += 1
                continue
            unlabelled += not answered
            yield query

    counted = Volume.of(texts())
    return Volume(queries=counted.queries, unlabelled=unlabelled, query_bytes=counted.query_bytes), unread


def _query(row: Any) -> tuple[str, bool]:
    """Return the query of a training row, and False if Bedrock still has to answer it."""
    messages = row["messages"]
    return str(messages[0]["content"][0]["text"]), len(messages) > 1


def show(settings: Settings, counted: Counted, found: Estimate, release: Part, console: Terminal) -> None:
    """Print the estimate, what it is based on, and whether it is within the limit."""
    chosen, limit = settings.distillation, settings.distillation.maximum_cost_usd

    say(
        console,
        f"{settings.owner}: {chosen.student} learns from {chosen.teacher} by {chosen.method}.",
        f"{counted.text}.",
    )
    parts = [("once", found.once), ("a month", found.monthly), ("a release", release)]
    for title, part in parts:
        console.print()
        console.print(_table(title, part))
    console.print()
    console.print(_alternatives(found.per_thousand))
    at_most = dollars(found.once.at_most_usd)
    within = (
        f"Within the limit: at most {at_most} USD once, distillation.maximum_cost_usd = {limit:g}. A "
        f"deployment also counts what was committed in the last {chosen.maximum_cost_days} days."
    )
    say(console, "", *_notes(spec(settings), found, release), "", check(found, limit) or within)


def _table(title: str, part: Part) -> Table:
    """Return a table of cost lines with their sum, and how each is computed."""
    table = _empty(title, "expected", "at most", "computed from")
    for line in part.lines:
        table.add_row(line.name, dollars(line.expected.usd), dollars(line.at_most.usd), line.expected.how)
        if line.at_most != line.expected:
            table.add_row("", "", "", f"at most: {line.at_most.how}")
    for name in part.unknown:
        table.add_row(name, "unknown", "unknown", f"add its price to {SHOWN}")
    sums = [dollars(part.expected_usd), dollars(part.at_most_usd)]
    table.add_row("together", *(["unknown"] * 2 if part.unknown else sums), "", style="bold")
    return table


def _alternatives(part: Part) -> Table:
    """Return a table of what 1,000 queries cost with each model, and the ratio to the distilled one."""
    table = _empty("1,000 queries", "expected", "times", "computed from")
    student = next((line.expected.usd for line in part.lines if line.name == "distilled"), 0.0)
    for line in part.lines:
        times = f"{line.expected.usd / student:,.0f}" if student else ""
        table.add_row(line.name, dollars(line.expected.usd), times, line.expected.how)
    for name in part.unknown:
        table.add_row(name, "unknown", "", f"add its price to {SHOWN}")
    return table


def _empty(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(title, no_wrap=True)
    first, second, last = columns
    table.add_column(first, justify="right", no_wrap=True)
    table.add_column(second, justify="right", no_wrap=True)
    table.add_column(last)
    return table


def _notes(asked: Spec, found: Estimate, release: Part) -> Iterator[str]:
    yield (
        f"Tokens are estimated: {BYTES_A_TOKEN} bytes of text each, {BYTES_AN_ANSWER_TOKEN} of an answer. "
        f"'At most' counts {MARGIN:g} times as many, and the longest answers that the settings allow."
    )
    if asked.synthesis:
        yield (
            f"Bedrock may synthesize pairs, up to {MOST_PAIRS:,} in total. 'At most' counts them, 'expected' "
            "doesn't."
        )
    if asked.method == "distillation":
        yield (
            f"Bedrock doesn't document the epochs of distillation: {EPOCHS} are expected, at most "
            f"{MOST_EPOCHS}, the default and the maximum of fine-tuning."
        )
    lines = (*found.once.lines, *found.monthly.lines, *found.per_thousand.lines, *release.lines)
    sources = sorted({line.cited for line in lines if line.cited})
    yield f"Prices in US dollars, from {SHOWN}: {'; '.join(sources)}."
    yield "Other AWS charges, such as Lambda, HTTP API, DynamoDB, KMS and logs, are not counted."


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
