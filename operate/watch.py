"""Follow a release in the terminal until it ends. It is looked at, never touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distilled_router.aws.errors import is_transient
from distilled_router.bedrock import jobs
from distilled_router.release.table import EVALUATING, LIVE, PROMOTING, WAITING, Release
from local.state import ENVIRONMENT
from operate.deployed import Deployed, Known, duration
from operate.releases import share

# Each look is a scan and up to four calls; Bedrock's control plane is not asked more often than this.
POLL_SECONDS = 5.0
LOCAL_POLL_SECONDS = 1.0


@dataclass
class Stage:
    """The stage that a release is in, and since when, as far as can be seen."""

    name: str
    since: float

    @classmethod
    def of(cls, release: Release) -> Stage:
        """The first one began with the release; of another one the item tells the last change only."""
        began = release.started_at if release.state == WAITING else release.updated_at
        return cls(f"{release.digest}-{release.attempt} {release.state}", began)


class Screen:
    """A live table on a terminal, one line for each change everywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[str, str]] = []
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def set(self, rows: list[tuple[str, str]], spent: str, at: str) -> None:
        """Show these rows; `spent` is the time in this stage and in all, `at` the time for a plain line."""
        if self._live:
            grid = Table.grid(padding=(0, 2))
            for title, text in [*rows, ("time", spent)]:
                grid.add_row(Text(title, "bold"), Text(text))
            self._live.update(grid)
            return
        for title, text in rows:
            if (title, text) not in self._rows:
                self._console.print(
                    f"{at:>12}  {title}: {text}", highlight=False, markup=False, emoji=False, soft_wrap=True
                )
        self._rows = rows


def follow(at: Deployed, console: Console, sleep: Callable[[float], None] = time.sleep) -> int:
    """Follow the release that is on its way, or show how the last one ended.

    Returns:
        0 where it is live, 1 where it ended in another way.

    Raises:
        LocalError: No release has begun yet.
    """
    seconds = LOCAL_POLL_SECONDS if at.environment == ENVIRONMENT else POLL_SECONDS
    known = _chosen(at)
    if known.release.is_final:
        console.print("No release is on its way. The last one:", highlight=False)
        return _end(known, console)
    digest, stage = known.release.digest, Stage.of(known.release)
    with Screen(console) as screen:
        while not known.release.is_final:
            now = Stage.of(known.release)
            stage = stage if stage.name == now.name else now
            in_all = duration(at.now() - known.release.started_at)
            spent = f"{duration(at.now() - stage.since)} {known.release.state}, {in_all} in all"
            screen.set(_rows(at, known.release), spent, in_all)
            sleep(seconds)
            known = _looked_at_again(at, digest, known)
    return _end(known, console)


def _chosen(at: Deployed) -> Known:
    """The release that is on its way, the newest of several; else the one that began last."""
    known = at.known()
    return next((entry for entry in known if not entry.release.is_final), known[0])


def _looked_at_again(at: Deployed, digest: str, before: Known) -> Known:
    """The release as it is now; as it was, where AWS can't be asked for a moment."""
    try:
        return next((entry for entry in at.known() if entry.release.digest == digest), before)
    except (BotoCoreError, ClientError) as error:
        if not is_transient(error):
            raise
        return before


def _end(known: Known, console: Console) -> int:
    release = known.release
    lines = [f"Release {release.digest} is {release.state}: {release.message or 'no reason given'}"]
    if known.report:
        lines.append(f"Report: {known.report}")
    for line in lines:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    return 0 if release.state == LIVE else 1


def _rows(at: Deployed, release: Release) -> list[tuple[str, str]]:
    """What can be said of a release now: a title and a text each."""
    rows = [("release", f"{release.digest}, attempt {release.attempt}")]
    rows.append((release.state, release.message))
    parts: tuple[tuple[str, bool, Callable[[], str]], ...] = (
        ("job", release.state == WAITING, lambda: _job(at.bedrock, release)),
        ("labelling", release.state == WAITING, lambda: shards(at.stepfunctions, release.labelling)),
        ("hold-out", release.state == EVALUATING, lambda: shards(at.stepfunctions, release.execution)),
        ("route", release.state == PROMOTING, lambda: _route(at, release)),
    )
    for title, wanted, look in parts:
        if wanted and (text := _seen(look)):
            rows.append((title, text))
    return rows


def _seen(look: Callable[[], str]) -> str:
    """What a look shows; nothing where the service refuses it. The release's own item says the most."""
    try:
        return look()
    except (BotoCoreError, ClientError):
        return ""


def _job(bedrock: Any, release: Release) -> str:
    """The job's status and its three phases; of another's job, which is named by its ARN, as well."""
    if ":custom-model/" in release.source or not release.source:
        return ""
    find = jobs.find if release.is_adopted else jobs.latest
    job = find(bedrock, release.source)
    return f"{job['jobName']} {job['status']}: {jobs.progress(job)}" if job else ""


def shards(stepfunctions: Any, execution: str) -> str:
    """How far the last map run of an execution is; nothing where it has none."""
    if not execution:
        return ""
    runs = stepfunctions.list_map_runs(executionArn=execution)["mapRuns"]
    if not runs:
        return ""
    last = max(runs, key=lambda run: run["startDate"])
    counts = stepfunctions.describe_map_run(mapRunArn=last["mapRunArn"])["itemCounts"]
    lost = counts["failed"] + counts["timedOut"] + counts["aborted"]
    done = f"{counts['succeeded'] + lost} of {counts['total']} shards"
    return f"{done}, {lost} of them failed" if lost else done


def _route(at: Deployed, release: Release) -> str:
    route = at.releases.route()
    # Without the seconds that are left: they would be a change at every look.
    taken = share(release.digest, route, at.now()).partition(" for ")[0] or "0%"
    return f"version {route.version}: {taken} of the requests"
