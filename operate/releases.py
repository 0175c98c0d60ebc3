"""List all releases: state, share of the requests, scores, cost, reports.

The live release comes first, then the newest. Below the table: the route, and
the release that the deployed settings declare.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from distilled_router.release.route import Route
from distilled_router.release.table import LIVE, RETIRED, Release
from operate import environment
from operate.console import Terminal, say, wide
from operate.console import console as terminal
from operate.deployed import Deployed, Known, deployed, duration, endpoint_name
from operate.head_switch import on_again

EXAMPLES = """\
  python -m operate releases
  python -m operate releases --environment prod
"""
LINE_CHARACTERS = 200
LEFT, RIGHT = (
    ("release", "state", "share"),
    ("try", "valid", "dominant", "error", "$/1,000", "age"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)


def run(options: argparse.Namespace) -> int:
    """Print all releases."""
    show(deployed(environment.reach(options.environment)), terminal())
    return 0


def show(at: Deployed, console: Terminal) -> None:
    """Print the releases, the live one first, then the newest; the route; the declared release.

    Raises:
        OperateError: No release has begun yet.
    """
    known, releases = at.known(), at.releases
    route, effective, declared = releases.route(), releases.effective_route(), releases.declared()
    known.sort(key=lambda entry: entry.release.state != LIVE)
    printed = wide(console)
    printed.print(table(known, effective, at.now()))
    say(printed, *_notes(known, route, effective, declared, at.now()))
    if effective.head_off:
        say(printed, "", f"Classification heads are switched off: {on_again(at)} switches them on.")


def table(known: Sequence[Known], route: Route, now: float) -> Table:
    """Return a table with one row for each release."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)  # so that 80 columns do
    for name in LEFT:
        result.add_column(name, no_wrap=True)
    for name in RIGHT:
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("from", overflow="fold")
    for entry in known:
        release, scores = entry.release, _scores(entry)
        cells = (
            release.digest,
            release.state,
            " + ".join(part.partition(" for ")[0] for part in shares(release.digest, route, now)),
            str(release.attempt),
            _number(scores, "valid_output", "{:.1%}"),
            _number(scores, "dominant_accuracy", "{:.1%}"),
            _number(scores, "mean_absolute_error", "{:.3f}"),
            _number(scores, "cost_per_1000_usd", "{:.4f}"),
            # The larger unit of the two.
            " ".join(duration(now - release.started_at).split()[:2]),
            endpoint_name(_endpoint(release, route)),
        )
        result.add_row(*cells)
    return result


def shares(digest: str, route: Route, now: float) -> list[str]:
    """Return a release's shares of the requests: `100%`, or `25% for 9 min 3 s` if one expires."""
    live = route.live
    partial = [entry for entry in route.shares if entry.expires_at is not None]
    found = []
    for entry in partial:
        if entry.digest == digest and entry.expires_at is not None:
            left = entry.expires_at - now
            found.append(f"{entry.share:.0%} for {duration(left)}" if left > 0 else "0%, expired")
    if live and live.digest == digest:
        found.insert(0, f"{_rest(route, now):.0%}")
    return found


def _rest(route: Route, now: float) -> float:
    """Return the share that expiring shares leave to the live release, or to the base model."""
    return max(1.0 - sum(s.share for s in route.shares if s.expires_at is not None and s.counts(now)), 0.0)


def _notes(
    known: Sequence[Known], route: Route, effective: Route, declared: str | None, now: float
) -> list[str]:
    since = f", {duration(now - route.updated_at)} ago" if route.updated_at else ""
    lines = [f"Route: version {route.version}{since}: {route.reason or 'no reason given'}."]
    if route.problem:
        lines.append(f"The route item is broken: {route.problem}. Routers keep the last good route.")
    if effective.live is None:
        lines.append(f"The base model takes {_rest(effective, now):.0%} of the requests: no release is live.")
    if declared is None:
        lines.append("The stack declares no release: its deployment hasn't ended, or it is being deleted.")
    else:
        lines.append(f"The stack declares {declared}.")
    lines.append("")
    for entry in known:
        release = entry.release
        first, *findings = _message(release)
        lines.append(f"{release.digest}, {duration(now - release.updated_at)} ago: {first}")
        lines += [f"    {finding}" for finding in findings]
        taken = shares(release.digest, effective, now)
        if any(" for " in part for part in taken):
            lines.append(f"    {' and '.join(taken)} of the requests")
        if release.holdout_key:
            passed = "" if release.state != LIVE or release.has_passed else ", not passed yet"
            lines.append(f"    hold-out set {release.holdout_key}{passed}")
        if release.head_file:
            lines.append("    with a classification head")
        if release.warnings not in release.message:
            lines.append(f"    Warning: {release.warnings}")
        if entry.report:
            lines.append(f"    {entry.report}")
    return lines


def _endpoint(release: Release, route: Route) -> str:
    """Return a release's model endpoint. For the live release, the route has it."""
    live = route.live
    return live.endpoint if live and live.digest == release.digest else release.endpoint


def _message(release: Release) -> list[str]:
    """Return a release's message: what happened, then the findings of the gate, each in a line."""
    message = release.message
    if release.state == RETIRED and release.rolled_back and "rolled back" not in message:
        message = f"rolled back; {message}"
    return [textwrap.shorten(line, LINE_CHARACTERS, placeholder=" …") for line in message.split("\n")]


def _scores(entry: Known) -> Mapping[str, Any]:
    try:
        found = json.loads(entry.scores or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(scores: Mapping[str, Any], name: str, form: str) -> str:
    value = scores.get(name)
    return form.format(value) if isinstance(value, int | float) else ""
