"""Switch classification heads off: models answer, or static weights if none does.

Nothing is deployed. No rollout, rollback or deployment switches them on again.
"""

from __future__ import annotations

import argparse

from operate import environment, head_switch

EXAMPLES = """\
  python -m operate head-off
  python -m operate head-off --environment prod
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)


def run(options: argparse.Namespace) -> int:
    """Switch heads off and print what was done."""
    return head_switch.run(options, off=True)
