"""Record this checkout as a version from which tests then upgrade: `python -m tests.upgrade [NAME]`.

By default under the version in `pyproject.toml`. For a commit from before this command, copy this folder into
its checkout, and run it there.
"""

from __future__ import annotations

import sys
import tomllib

from operate.printing import out
from stacks.settings import PROJECT
from tests.upgrade import versions


def main() -> int:
    """Write the file."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    path = versions.record(sys.argv[1] if len(sys.argv) > 1 else str(project["version"]))
    out(f"Wrote {path.relative_to(PROJECT)}: {path.stat().st_size / 1024:.0f} KB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
