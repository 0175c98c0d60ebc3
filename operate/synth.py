"""Write an environment's CloudFormation templates, without any access to AWS.

Needs no credentials, and fails if the settings can't be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from operate import cdk, environment
from operate.printing import err
from stacks.settings import PROJECT

EXAMPLES = """\
  python -m operate synth --environment dev
  python -m operate synth --environment prod --output /tmp/prod
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)
    parser.add_argument(
        "--output", type=Path, default=PROJECT / "cdk.out", help="folder to write to; by default cdk.out"
    )


def run(options: argparse.Namespace) -> int:
    """Synthesize the environment."""
    err(f"Synthesizing {options.environment} into {options.output}, which takes 10 to 30 seconds ...")
    cdk.write_assembly(options.environment, options.output)
    return 0
