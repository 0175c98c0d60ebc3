"""Plain output. This and `operate.console` print everything, so that no text controls a terminal.

It needs no package, for the installer and for a quick `--help`.
"""

from __future__ import annotations

import sys

from distilled_router.visible import visible


def out(text: str = "", *, end: str = "\n") -> None:
    """Print text at once."""
    print(visible(text), end=end, flush=True)


def err(text: str) -> None:
    """Print text to standard error at once."""
    print(visible(text), file=sys.stderr, flush=True)
