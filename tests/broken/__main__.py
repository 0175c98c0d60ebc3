"""Prints which tests catch which broken version, as a Markdown table: `python -m tests.broken`."""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.broken.trial import attempt
from tests.broken.versions import VERSIONS


def main() -> int:
    """Run the whole suite on each version; 1 where one of them is caught by nothing."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        verdicts = list(
            pool.map(
                lambda numbered: attempt(numbered[1], Path(folder, str(numbered[0])), to_the_end=True),
                enumerate(VERSIONS),
            )
        )
    lines = ["| broken version | tests that catch it |", "|---|---|"]
    for version, verdict in zip(VERSIONS, verdicts, strict=True):
        names = ", ".join(f"`{name.rpartition('::')[2]}`" for name in verdict.caught_by)
        lines.append(f"| {version.name} | {len(verdict.caught_by)}: {names} |")
    sys.stdout.write("\n".join([*lines, ""]))
    return 0 if all(verdict.caught_by for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
