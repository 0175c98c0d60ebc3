"""Delete an environment's stacks from AWS.

Runs `cdk destroy` with your credentials. It asks first. What the settings
under [retention] keep stays in the account.
"""

from __future__ import annotations

import argparse

from operate import cdk, environment

EXAMPLES = """\
  python -m operate destroy --environment dev
  python -m operate destroy --environment dev video-router-dev-operations
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument(
        "arguments", nargs="*", help="stacks, or options of `cdk destroy` after --; by default all stacks"
    )


def run(options: argparse.Namespace) -> int:
    """Run `cdk destroy` and return its exit status."""
    return cdk.run_in_account(options.environment, ["destroy", *(options.arguments or ["--all"])])
