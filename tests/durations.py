"""Write the slowest tests of both tiers into docs/testing.md: `python -m tests.durations`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence

from stacks.settings import PROJECT

PAGE = PROJECT / "docs" / "testing.md"
TIERS = {"quick": (), "slow": ("tests", "-m", "slow", "-n", "3")}
SHOWN = 25
_LINE = re.compile(r"^(\d+\.\d+)s (setup|call|teardown) +(\S.*)$", re.MULTILINE)


def measured(arguments: Sequence[str]) -> str:
    """Run pytest, and return how long it took and its slowest tests as a Markdown table.

    Raises:
        SystemExit: A test failed.
    """
    command = [sys.executable, "-m", "pytest", "-q", f"--durations={SHOWN}", *arguments]
    began = time.monotonic()
    result = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(result.stdout[-5000:])
    return table(result.stdout, time.monotonic() - began)


def table(output: str, seconds: float) -> str:
    """Return pytest's list of durations as a Markdown table, with the time of all tests above it."""
    rows = [f"| {took} | {phase} | `{test}` |" for took, phase, test in _LINE.findall(output)]
    head = [f"{seconds:.0f} s in all.", "", "| seconds | phase | test |", "|---|---|---|"]
    return "\n".join([*head, *rows])


def replaced(page: str, tier: str, text: str) -> str:
    """Return the page with a text between a tier's marks.

    Raises:
        ValueError: The page has no such marks.
    """
    first, last = f"<!-- durations: {tier} -->", f"<!-- end of durations: {tier} -->"
    before, found, rest = page.partition(first)
    _, ended, after = rest.partition(last)
    if not (found and ended):
        raise ValueError(f"docs/testing.md: {first} and {last} are missing")
    return f"{before}{first}\n{text}\n{last}{after}"


if __name__ == "__main__":
    for name, given in TIERS.items():
        timed = measured(given)
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), name, timed), encoding="utf-8")
