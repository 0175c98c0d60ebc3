"""`python -m operate.cost`: what an environment will cost, before anything is paid for. Nothing asks AWS."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.cost.estimate import Estimate, Part, Spec, Volume, check, dollars, estimate, graded
from distilled_router.cost.lines import (
    BYTES_A_TOKEN,
    BYTES_AN_ANSWER_TOKEN,
    EPOCHS,
    MARGIN,
    MOST_EPOCHS,
    MOST_PAIRS,
)
from distilled_router.cost.prices import SHOWN, PriceError, Prices
from distilled_router.data.dataset_rules import lines
from distilled_router.task.task import Task, TaskError
from evaluation.grades import instructions
from local.state import PROJECT
from operate.errors import LocalError
from stacks.costs import spec
from stacks.settings import ENVIRONMENTS, Settings, SettingsError, load

# Wide enough for the tables where no terminal says how wide it is.
PLAIN_WIDTH = 140
ASSUMED_QUERIES = 1_000
_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Counted:
    """How much data there is, and a sentence about it."""

    volume: Volume
    text: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the estimate of one environment; return the exit status: 1 where there is none, or where it
    exceeds the environment's limit."""
    parser = argparse.ArgumentParser(prog="python -m operate.cost", description=__doc__)
    parser.add_argument("--environment", required=True)
    parser.add_argument(
        "--queries", type=_number, help="count so many rows or queries, instead of those that are there"
    )
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, help="folder of the settings files"
    )
    options = parser.parse_args(arguments)
    try:
        settings = load(options.environment, options.environments)
        counted = count(settings, PROJECT, options.queries)
        found = estimate(spec(settings), counted.volume, Task.load(settings.task_folder), Prices.load())
        judged = grades(settings, counted.volume)
    except (LocalError, SettingsError, PriceError, TaskError) as error:
        print(f"\nFailed: {error}", file=sys.stderr)
        return 1
    console = Console()
    show(settings, counted, found, judged, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    return 1 if check(found, settings.distillation.maximum_cost_usd) else 0


def grades(settings: Settings, volume: Volume) -> Part:
    """What the judge costs for each release; nothing where none is set."""
    judge, task = settings.evaluation.judge, Task.load(settings.task_folder)
    if judge is None:
        return Part(())
    told = instructions(task)
    return graded(spec(settings), volume, task, Prices.load(), judge=judge, instructions=told)


def count(settings: Settings, project: Path, queries: int | None = None) -> Counted:
    """Count the rows or raw queries of an environment.

    Args:
        settings: the environment's.
        project: folder to which the paths in the settings are relative.
        queries: count so many instead; of a file that is here, its own queries say how long they are.

    Raises:
        LocalError: The file can't be read, or holds nothing that could be counted.
    """
    dataset = settings.dataset
    raw = dataset.labels == "teacher"
    location = str((dataset.queries if raw else dataset.training) or dataset.logs)
    what = "queries" if raw else "logged requests" if dataset.logs else "rows"
    if dataset.source == "file":
        return _of_file(project, location, what, queries)
    number = queries or ASSUMED_QUERIES
    # Logged prompts are answered anew, unless their answers are taken.
    unlabelled = number if dataset.logs and not dataset.use_logged_answers else 0
    text = f"{location}: {number:,} {what}, as --queries says"
    if not queries:
        text = (
            f"{location} isn't read here, so that its {what} are unknown. The figures are for {number:,} of "
            "them, each with an answer: say how many there are with --queries"
        )
    return Counted(Volume(queries=number, unlabelled=unlabelled), text)


def _of_file(project: Path, location: str, what: str, queries: int | None) -> Counted:
    try:
        with (project / location).open("rb") as file:
            chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
            volume, unread = _volume(lines(chunks), plain=location.endswith(".txt"))
    except OSError as error:
        raise LocalError(f"{location} can't be read: {error.strerror}.") from error
    if not volume.queries:
        raise LocalError(f"{location} holds no {what} that can be read.")
    text = f"{location}: {volume.queries:,} {what}"
    if volume.unlabelled:
        text += f", {volume.unlabelled:,} of them without an answer"
    if unread:
        text += f", and {unread:,} lines that can't be read and don't count"
    if queries:
        part = queries / volume.queries
        text = f"{queries:,} {what} as in {text}"
        volume = Volume(
            queries=queries,
            unlabelled=round(volume.unlabelled * part),
            query_bytes=round((volume.query_bytes or 0) * part),
        )
    return Counted(volume, text)


def _volume(rows: Iterable[bytes], *, plain: bool) -> tuple[Volume, int]:
    """What the lines hold, and how many can't be read."""
    unlabelled = unread = 0

    def texts() -> Iterator[str]:
        nonlocal unlabelled, unread
        for line in rows:
            if not line.strip():
                continue
            try:
                query, answered = (line.decode().strip(), True) if plain else _query(json.loads(line))
            except (ValueError, LookupError, TypeError, RecursionError):
                unread += 1
                continue
            unlabelled += not answered
            yield query

    counted = Volume.of(texts())
    return Volume(queries=counted.queries, unlabelled=unlabelled, query_bytes=counted.query_bytes), unread


def _query(row: Any) -> tuple[str, bool]:
    """The query of a training row, or of a raw one, and whether it needs no answer of Bedrock's."""
    if "query" in row:
        return str(row["query"]), True
    messages = row["messages"]
    return str(messages[0]["content"][0]["text"]), len(messages) > 1


def show(settings: Settings, counted: Counted, found: Estimate, judged: Part, console: Console) -> None:
    """Print the estimate, what it rests on, and whether the limit holds."""
    chosen, limit = settings.distillation, settings.distillation.maximum_cost_usd

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(f"{settings.owner}: {chosen.student} learns from {chosen.teacher} by {chosen.method}.")
    say(f"{counted.text}.")
    parts = [("once", found.once), ("a month", found.monthly)]
    if settings.evaluation.judge:
        parts.append(("a release", judged))
    for title, part in parts:
        say()
        console.print(_table(title, part), highlight=False)
    say()
    console.print(_alternatives(found.per_thousand), highlight=False)
    say()
    for note in _notes(spec(settings), found, judged):
        say(note)
    say()
    problem = check(found, limit)
    if problem:
        say(problem)
    else:
        at_most = dollars(found.once.at_most_usd)
        say(f"The limit holds: at most {at_most} USD once, distillation.maximum_cost_usd = {limit:g}.")


def _table(title: str, part: Part) -> Table:
    """Lines and their sum, with how each is computed."""
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
    """What 1,000 queries cost by whoever answers them, and how many times as much as the first."""
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


def _notes(asked: Spec, found: Estimate, judged: Part) -> Iterator[str]:
    yield (
        f"Tokens are estimated: {BYTES_A_TOKEN} bytes of text each, {BYTES_AN_ANSWER_TOKEN} of an answer. At "
        f"most counts {MARGIN:g} times as many, and the longest answers that the settings allow."
    )
    if asked.synthesis:
        yield (
            f"Bedrock may synthesize pairs, up to {MOST_PAIRS:,} with those that it is given: at most counts "
            "them, expected doesn't."
        )
    if asked.method == "distillation":
        yield (
            f"Bedrock documents no passes for distillation: {EPOCHS} are expected, {MOST_EPOCHS} counted at "
            "most, which are the default and the maximum of fine-tuning."
        )
    lines = (*found.once.lines, *found.monthly.lines, *found.per_thousand.lines, *judged.lines)
    sources = sorted({line.cited for line in lines if line.cited})
    yield f"US dollars, by {SHOWN}: {'; '.join(sources)}."
    yield "What else AWS bills, such as Lambda, API, table, key and logs, isn't counted."


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
