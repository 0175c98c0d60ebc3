"""Check an environment's account: credentials, models, quotas, stacks, releases.

It only reads: nothing is changed, and no model is asked. Each check is ok, a
warning or a problem, with the next step below it. A check that the credentials
may not make is a warning that names the permission. The exit status is 1 if
there is a problem.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

from operate import environment
from operate.checkup import declared, leftovers, live, models, place
from operate.checkup.finding import Finding, attempted
from operate.console import Terminal, say
from operate.console import console as terminal
from operate.deployed import Deployed, deployed
from operate.environment import Environment

EXAMPLES = """\
  python -m operate doctor
  python -m operate doctor --environment dev
"""
LEVEL, CHECK = 9, 17
INDENT = " " * (LEVEL + CHECK)
STYLES = {"ok": "", "skipped": "", "warning": "yellow", "problem": "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)


def run(options: argparse.Namespace) -> int:
    """Make all checks and print them; return 1 if there is a problem, else 0."""
    return show(examine(environment.reach(options.environment)), terminal())


def examine(at: Environment) -> Iterator[Finding]:
    """Yield the findings of all checks. With other credentials, no check after them means anything."""
    local = bool(at.variables)
    for finding in place.credentials(at):
        yield finding
        if finding.level == "problem":
            return
    for check, findings in (
        ("bootstrap", place.bootstrap(at)),
        ("concurrency", place.concurrency(at)),
        ("model units", place.model_units(at)),
        ("stacks", place.stacks(at)),
    ):
        yield from attempted(check, findings, local=local)
    named = models.named(at.settings)
    for model in named:
        yield from attempted(model.role, models.usable(at, model), local=local)
    for model in models.by_base(named):
        yield from attempted(model.access, models.access(at, model), local=local)
    yield from attempted(declared.CHECK, declared.model(at), local=local)
    yield from attempted("release", _of_releases(at, local=local), local=local)


def _of_releases(at: Environment, *, local: bool) -> Iterator[Finding]:
    """Yield the checks that need the releases table."""
    found: Deployed | None = None
    if place.stack(at, f"{at.settings.owner}-release"):
        found = deployed(at)
        yield from attempted("release", live.releases(at, found), local=local)
    left = leftovers.Leftovers(at, found)
    for kind in leftovers.COSTS:
        yield from attempted(kind, left.check(kind), local=local)


def show(findings: Iterable[Finding], console: Terminal) -> int:
    """Print findings as they come, and how many problems and warnings there are; return the exit status."""
    count = dict.fromkeys(STYLES, 0)
    for finding in findings:
        count[finding.level] += 1
        say(console, *lines(finding), style=STYLES[finding.level], indent=INDENT)
    problems, warnings = count["problem"], count["warning"]
    say(console, "", f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}.".capitalize())
    return 1 if problems else 0


def lines(finding: Finding) -> Iterator[str]:
    """Yield a finding's lines: level, check and what was found; below it the next step, and its command."""
    yield f"{finding.level:<{LEVEL}}{finding.check:<{CHECK}}{finding.found}"
    if finding.step:
        yield f"{INDENT}Next: {finding.step}"
    if finding.command:
        yield f"  {finding.command}"


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
