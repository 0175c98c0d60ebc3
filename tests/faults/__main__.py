"""The fault run: `python -m tests.faults --schedules 200`, or `make faults`.

Each schedule deploys, updates and destroys the whole system on the local CloudFormation while random calls
fail, and then checks the invariants in `tests.faults.run.Run`. Time is scaled. A schedule follows from its
seed, so one that fails can be run alone.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import track

from tests.faults.workers import run


def main() -> int:
    """Parse the command line, run the schedules, print the failures, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the first (1); 0 has no faults")
    parser.add_argument("--workers", type=int, default=4, help="schedules at a time (4)")
    parser.add_argument("--verbose", action="store_true", help="tell the story of every schedule")
    options = parser.parse_args()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    seeds = range(options.seed, options.seed + options.schedules)
    results = run(seeds, min(options.workers, options.schedules))
    failed, answers, began = {}, 0, time.monotonic()
    for result in track(results, "schedules", total=len(seeds), console=console):
        answers += result.answers
        if result.problems:
            failed[result.seed] = result.problems
        if result.problems or options.verbose:
            console.print(f"seed {result.seed}, {result.seconds:.0f} s, {result.answers} queries answered")
            console.print("\n".join([*result.story, *(f"PROBLEM {text}" for text in result.problems)]))
    seconds = time.monotonic() - began
    console.print(
        f"Seeds {seeds[0]} to {seeds[-1]}: {len(failed)} of {len(seeds)} failed; {answers} queries answered; "
        f"{seconds / 60:.1f} minutes, {seconds / len(seeds):.1f} s a schedule"
    )
    for finding, number in Counter(_kind(text) for found in failed.values() for text in found).most_common():
        console.print(f"{number:4} x {finding}")
    for seed in failed:
        console.print(f"Seed {seed} alone: make faults SEED={seed} SCHEDULES=1")
    return 1 if failed else 0


def _kind(problem: str) -> str:
    """Return a problem's first line without names and numbers, to count equal ones."""
    return re.sub(r"\S*[0-9a-f]{12}\S*|\d+", "…", problem.splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
