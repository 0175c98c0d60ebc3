"""Print which tests catch which broken version, as a Markdown table: `python -m tests.broken`."""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.broken.trial import attempt, files
from tests.broken.versions import VERSIONS

# The table is for people to read.
SHOWN = 5


def main() -> int:
    """Run the whole suite on each version; return 1 if any of them is not caught."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        trials = [
            pool.submit(attempt, version, files(version), Path(folder, str(number)), to_the_end=True)
            for number, version in enumerate(VERSIONS)
        ]
        verdicts = [trial.result() for trial in trials]
    lines = ["| broken version | caught by | among them |", "|---|---|---|"]
    for version, verdict in zip(VERSIONS, verdicts, strict=True):
        names = sorted({test.rpartition("::")[2] for test in verdict.caught_by})
        shown = ", ".join(f"`{name}`" for name in names[:SHOWN])
        lines.append(f"| {version.name} | {len(verdict.caught_by)} tests | {shown} |")
    sys.stdout.write("\n".join([*lines, ""]))
    return 0 if all(verdict.caught_by for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
