"""Switch classification heads on again, after head-off.

Heads then answer as head.mode in the settings says.
"""

from __future__ import annotations

import argparse

from operate import environment, head_switch

EXAMPLES = """\
  python -m operate head-on
  python -m operate head-on --environment prod
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)


def run(options: argparse.Namespace) -> int:
    """Switch heads on and print what was done."""
    return head_switch.run(options, off=False)
