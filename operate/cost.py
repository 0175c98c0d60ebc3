"""Estimate what an environment costs: once, a month, a release, 1,000 queries.

Counts the rows of the data set and takes prices from a table in this project,
without any access to AWS. The exit status is 1 if the estimate by itself
exceeds distillation.maximum_cost_usd.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

from rich import box
from rich.table import Table

from distilled_router.cost.estimate import (
    COMPARED,
    Estimate,
    Line,
    Part,
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
    Case,
)
from distilled_router.cost.prices import SHOWN, PriceError, Prices
from distilled_router.data.preflight import shown as shown_power
from distilled_router.links import inside
from distilled_router.release.rollout import Rollout
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.grades import instructions
from operate import environment
from operate.console import Terminal, say
from operate.console import console as terminal
from operate.cost_volume import Counted, count
from operate.month import (
    ANSWER_BYTES,
    ENVIRONMENTS,
    FIRST_TOKEN_MS,
    STORED_GB,
    SWEEP_SECONDS,
    TOKENS_A_SECOND,
    Charge,
    Month,
)
from stacks import preflight
from stacks.costs import deployed, spec
from stacks.settings import PROJECT, Settings, is_s3, load

EXAMPLES = """\
  python -m operate cost --environment dev
  python -m operate cost --environment dev --queries 10000
"""
MONTHLY_QUERIES = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument(
        "--queries",
        type=_number,
        metavar="COUNT",
        default=MONTHLY_QUERIES,
        help=f"queries to the router in a month; by default {MONTHLY_QUERIES}",
    )
    parser.add_argument(
        "--rows",
        type=_number,
        metavar="COUNT",
        help="assume this many rows or raw queries in the data set",
    )


def run(options: argparse.Namespace) -> int:
    """Print the estimate; return 1 if it exceeds the environment's limit."""
    settings = load(options.environment)
    counted = count(settings, PROJECT, options.rows)
    task, prices = Task.load(settings.task_folder), Prices.load()
    found = estimate(spec(settings), counted.volume, task, prices)
    case = Case(spec(settings), counted.volume, task, prices)
    month = Month(settings, deployed(settings), case, options.queries)
    show(month, counted, found, for_each_release(month, PROJECT), terminal())
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
            f"check a local copy, run `make dataset-check FILE=... FOR={settings.file}`.",
        )
    for finding in report.by_weight():
        say(console, f"{finding.severity}: {finding}")
    if told := shown_power(report, preflight.needs(settings)):
        say(console, told)


def for_each_release(month: Month, project: Path) -> Part:
    """Return what each release costs besides its job: evaluation, rollout, and the judge if set."""
    settings, case = month.settings, month.case
    rollout = Rollout.of(settings.rollout.to_function())
    tokens = each_release(
        case.spec,
        case.volume,
        case.task,
        case.prices,
        questions=_questions(settings, case.task, project),
        compares_base=settings.evaluation.compare_base,
        probes=rollout.probes * len(rollout.rounds),
        judge=settings.evaluation.judge,
        instructions=instructions(case.task),
    )
    hours = ceil(len(rollout.rounds) * rollout.dwell_seconds / 3_600)
    metrics, steps = month.rollout(hours), month.steps()
    other = (
        Line(name="rollout metrics", expected=metrics, at_most=metrics),
        Line(name="state machine", expected=steps, at_most=steps),
    )
    return Part((*tokens.lines, *other), tokens.unknown)


def _questions(settings: Settings, task: Task, project: Path) -> int:
    """Return the number of an evaluation's questions: the hold-out set and the robustness slices.

    A hold-out set that is not on this machine, or is split off, counts as the smallest that the gate takes.
    """
    holdout, rows = settings.dataset.holdout, settings.gate.minimum_examples
    if holdout and not is_s3(holdout):
        with suppress(OSError), inside(project, holdout).open("rb") as file:
            rows = sum(bool(line.strip()) for line in file)
    if not settings.evaluation.slice_queries:
        return rows
    variants = Robustness.load(task, settings.task_folder)
    slices = 2 + sum(map(bool, (variants.paraphrases, variants.injections, variants.filler)))
    others = len(variants.out_of_domain) + len(variants.other_languages)
    return rows + slices * min(settings.evaluation.slice_queries, rows) + others


def show(month: Month, counted: Counted, found: Estimate, release: Part, console: Terminal) -> None:
    """Print the estimate, what it is based on, and whether it is within the limit."""
    settings = month.settings
    chosen, limit = settings.distillation, settings.distillation.maximum_cost_usd

    say(
        console,
        f"{settings.owner}: {chosen.student} learns from {chosen.teacher} by {chosen.method}.",
        f"{counted.text}.",
    )
    charges = _charges(month)
    for table in (
        _table("once", found.once),
        _month_table(month, charges),
        _table("a release", release),
        _alternatives(month, charges, found.per_thousand),
    ):
        console.print()
        console.print(table)
    at_most = dollars(found.once.at_most_usd)
    within = (
        f"Within the limit: at most {at_most} USD once, distillation.maximum_cost_usd = {limit:g}. A "
        f"deployment also counts what was committed in the last {chosen.maximum_cost_days} days."
    )
    say(console, "", *_notes(month, charges, found, release), "", check(found, limit) or within)


def _charges(month: Month) -> list[Charge]:
    """Return the charges of a month; none if a price is unknown."""
    try:
        return list(month.charges())
    except PriceError:
        return []


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


def _month_table(month: Month, charges: list[Charge]) -> Table:
    """Return a table of a month's charges, idle and with the queries."""
    table = _empty("a month", "idle", f"{_short(month.queries)} queries", "computed from")
    for charge in charges:
        table.add_row(charge.name, dollars(charge.idle.usd), dollars(charge.busy.usd), charge.busy.how)
    sums = [sum(amounts) for amounts in zip(*((c.idle.usd, c.busy.usd) for c in charges), strict=True)]
    table.add_row("together", *(map(dollars, sums) if sums else ["unknown"] * 2), "", style="bold")
    return table


def _alternatives(month: Month, charges: list[Charge], part: Part) -> Table:
    """Return a table of what each model's answers cost: the tokens of 1,000, and the whole month."""
    table = _empty("answered by", "1,000", "month", "times", "tokens of 1,000 queries")
    distilled = sum(charge.busy.usd for charge in charges)
    for line in part.lines:
        whole = distilled if line.name == "distilled" else _whole(month, line.name)
        shown = (dollars(whole), f"{whole / distilled:,.1f}") if whole and distilled else ("unknown", "")
        table.add_row(line.name, dollars(line.expected.usd), *shown, line.expected.how)
    for name in part.unknown:
        table.add_row(name, "unknown", "unknown", "", f"add its price to {SHOWN}")
    return table


def _whole(month: Month, name: str) -> float | None:
    """Return the whole month in US dollars with another model; None if a price is unknown."""
    spec = month.case.spec
    model = {"base": spec.base_model, "teacher": spec.teacher, **COMPARED}[name]
    try:
        return month.with_model(model, full=True)
    except PriceError:
        return None


def _short(number: int) -> str:
    """Return a number in few characters: 1M, 250k, 1,234."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if number % size == 0:
            return f"{number // size:,}{unit}"
    return f"{number:,}"


def _empty(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(title, no_wrap=True)
    *numbers, last = columns
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(last, overflow="fold")
    return table


def _notes(month: Month, charges: list[Charge], found: Estimate, release: Part) -> Iterator[str]:
    asked = month.case.spec
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
    yield (
        "A month has no free tier, no answer from a cache, and requests at even intervals. Assumed: "
        f"{FIRST_TOKEN_MS} ms to a model's first token and {TOKENS_A_SECOND} tokens a second, {ENVIRONMENTS} "
        f"execution environments, {SWEEP_SECONDS} s for a sweep, {ANSWER_BYTES} bytes of an answer with "
        f"headers, and {STORED_GB:g} GB in S3. The month of another model has no model storage or hosting."
    )
    lines = (*found.once.lines, *found.per_thousand.lines, *release.lines)
    cited = [*(line.cited for line in lines), *(charge.cited for charge in charges)]
    sources = sorted({source for source in cited if source})
    yield f"Prices in US dollars, from {SHOWN}: {'; '.join(sources)}."
    yield (
        "Not counted: what costs less than a cent, notifications, the CI, data transfer inside AWS, and "
        "support plans."
    )


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number
