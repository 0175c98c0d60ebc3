"""Write `docs/permissions.md`; with `--record`, run the tests that deploy and record their calls first."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from stacks.settings import PROJECT
from tests.faults.schedule import TOUR
from tests.permissions import calls, document
from tests.permissions.grants import environments
from tests.permissions.proof import Proof
from tests.stacks import synthesis

RUNS = ("tests/integration", "tests/faults", "tests/rollouts", "tests/engine")
# All variants, and a schedule with faults.
SEEDS = (TOUR, 43)


def record() -> None:
    """Run the tests that deploy, and record their calls. Raise CalledProcessError if a test fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *RUNS]
        faults = [[sys.executable, "-m", "tests.faults", "--schedules=1", f"--seed={seed}"] for seed in SEEDS]
        for each in (command, *faults):
            subprocess.run(each, cwd=PROJECT, env=os.environ | {calls.FOLDER: folder}, check=True)
        calls.write(calls.kept(Path(folder)))


def main() -> int:
    """Write the page, and print the problems of the policies."""
    parser = argparse.ArgumentParser(prog="python -m tests.permissions", description=__doc__)
    parser.add_argument(
        "--record", action="store_true", help="run the tests that deploy, and keep their calls"
    )
    if parser.parse_args().record:
        record()
    made = environments(synthesis.assemblies())
    proof = Proof(tuple(made), frozenset(calls.recorded()))
    document.PATH.write_text(document.text(proof), encoding="utf-8")
    problems = proof.problems()
    for problem in problems:
        print(problem)  # noqa: T201 - what a command is for
    told = f"{len(proof.grants)} permissions, {len(problems)} problems"
    print(f"{document.PATH.relative_to(PROJECT)}: {told}")  # noqa: T201 - as above
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
