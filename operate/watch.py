"""Follow the running release until it ends, and change nothing.

The exit status is 0 if the release is live, and 1 if it ended otherwise or has
not passed on another hold-out set. If no release is running, the last one is
shown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.live import Live
from rich.table import Table
from rich.text import Text

from distilled_router.aws.errors import is_transient
from distilled_router.bedrock import jobs
from distilled_router.release.table import EVALUATING, LIVE, ROLLING_OUT, WAITING, Release
from operate import environment
from operate.console import Terminal, say
from operate.console import console as terminal
from operate.deployed import Deployed, Known, deployed, duration
from operate.head_switch import on_again
from operate.releases import shares

EXAMPLES = """\
  python -m operate watch --environment dev
  python -m operate watch --environment dev && echo "It is live."
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)


def run(options: argparse.Namespace) -> int:
    """Follow the release; return 0 if it is live at the end."""
    at = deployed(environment.reach(options.environment))
    try:
        return follow(at, terminal())
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The release continues.") from None


@dataclass
class Stage:
    """The state that a release is in, and since when."""

    name: str
    since: float

    @classmethod
    def of(cls, release: Release) -> Stage:
        """Return the state of a release. The first began with the release, others with its last update."""
        began = release.started_at if release.state == WAITING else release.updated_at
        return cls(f"{release.digest}-{release.attempt} {release.state}", began)


class Screen:
    """A live table on a terminal, one line for each change everywhere else."""

    def __init__(self, console: Terminal) -> None:
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
        """Show these rows; `spent` is the time in this state and in all, `at` the time for a plain line."""
        if self._live:
            grid = Table.grid(padding=(0, 2))
            for title, text in [*rows, ("time", spent)]:
                grid.add_row(Text(title, "bold"), text)
            self._live.update(grid)
            return
        for title, text in rows:
            if (title, text) not in self._rows:
                say(self._console, f"{at:>12}  {title}: {text}")
        self._rows = rows


def follow(at: Deployed, console: Terminal, sleep: Callable[[float], None] = time.sleep) -> int:
    """Follow the running release, or show how the last one ended.

    Returns:
        0 if it is live, 1 if it ended otherwise or has not passed on another hold-out set.

    Raises:
        OperateError: No release has begun yet.
    """
    known = _followed(at)
    if known.release.is_over:
        say(console, "No release is running. The last one:")
        return _end(known, console)
    digest, stage = known.release.digest, Stage.of(known.release)
    with Screen(console) as screen:
        while not known.release.is_over:
            now = Stage.of(known.release)
            stage = stage if stage.name == now.name else now
            in_all = duration(at.now() - known.release.started_at)
            spent = f"{duration(at.now() - stage.since)} {known.release.state}, {in_all} in all"
            screen.set(_rows(at, known.release), spent, in_all)
            sleep(at.poll_seconds)
            known = _refreshed(at, digest, known)
    return _end(known, console)


def _followed(at: Deployed) -> Known:
    """Return the newest running release, or the one that began last if none is running."""
    known = at.known()
    return next((entry for entry in known if not entry.release.is_over), known[0])


def _refreshed(at: Deployed, digest: str, before: Known) -> Known:
    """Return the release as it is now, or as it was `before` if AWS fails temporarily."""
    try:
        return next((entry for entry in at.known() if entry.release.digest == digest), before)
    except (BotoCoreError, ClientError) as error:
        if not is_transient(error):
            raise
        return before


def _end(known: Known, console: Terminal) -> int:
    release = known.release
    say(console, f"Release {release.digest}, {release.state}: {release.message or 'no reason given'}")
    if release.warnings not in release.message:
        say(console, f"Warning: {release.warnings}")
    if known.report:
        say(console, f"Report: {known.report}")
    return 0 if release.state == LIVE and release.has_passed else 1


def _rows(at: Deployed, release: Release) -> list[tuple[str, str]]:
    """Return what is known of a release now, each with a title."""
    rows = [("release", f"{release.digest}, attempt {release.attempt}")]
    rows.append((release.state, release.message))
    is_evaluated = release.state == EVALUATING or release.is_reevaluated
    parts: tuple[tuple[str, bool, Callable[[], str]], ...] = (
        ("job", release.state == WAITING, lambda: _job(at.bedrock, release)),
        ("labelling", release.state == WAITING, lambda: shards(at.stepfunctions, release.labelling)),
        ("hold-out", is_evaluated, lambda: shards(at.stepfunctions, release.execution)),
        ("head", release.head_file is not None, lambda: _head(at)),
        ("route", release.state == ROLLING_OUT, lambda: _route(at, release)),
    )
    for title, wanted, read in parts:
        if wanted and (text := _seen(read)):
            rows.append((title, text))
    return rows


def _seen(read: Callable[[], str]) -> str:
    """Return the result of `read`, or nothing if the service refuses: the caller may lack permissions."""
    try:
        return read()
    except (BotoCoreError, ClientError):
        return ""


def _job(bedrock: Any, release: Release) -> str:
    """Return the status of the customization job and its phases; nothing for an existing model."""
    if ":custom-model/" in release.source or not release.source:
        return ""
    find = jobs.find if release.is_adopted else jobs.latest
    job = find(bedrock, release.source)
    return f"{job['jobName']} {job['status']}: {jobs.progress(job)}" if job else ""


def shards(stepfunctions: Any, execution: str) -> str:
    """Return the progress of an execution's last map run; nothing if it has none."""
    if not execution:
        return ""
    runs = stepfunctions.list_map_runs(executionArn=execution)["mapRuns"]
    if not runs:
        return ""
    last = max(runs, key=lambda run: run["startDate"])
    counts = stepfunctions.describe_map_run(mapRunArn=last["mapRunArn"])["itemCounts"]
    failed = counts["failed"] + counts["timedOut"] + counts["aborted"]
    done = f"{counts['succeeded'] + failed} of {counts['total']} shards"
    return f"{done}, {failed} of them failed" if failed else done


def _head(at: Deployed) -> str:
    """Return that a head was trained, and whether an operator has switched heads off."""
    off = at.releases.effective_route().head_off
    return f"trained, but switched off: {on_again(at)} switches heads on" if off else "trained"


def _route(at: Deployed, release: Release) -> str:
    route = at.releases.route()
    # Without the remaining seconds, which would be a change at every poll.
    found = [part.partition(" for ")[0] for part in shares(release.digest, route, at.now())]
    taken = " and ".join(found) or "0%"
    return f"version {route.version}: {taken} of the requests"
