"""Write `docs/checks.md`: `python -m tests.checks`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.checks import document
from tests.checks.acknowledged import Acknowledged
from tests.stacks.synthesize_all import synthesize


def main() -> int:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        synthesize(document.ENVIRONMENT, Path(folder))
        acknowledged = Acknowledged(Path(folder) / document.ENVIRONMENT)
        document.PATH.write_text(document.text(acknowledged), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
