"""Deploy an environment to AWS.

Runs `cdk deploy` with your credentials. Afterwards the release continues in
AWS; the command `watch` follows it.
"""

from __future__ import annotations

import argparse

from operate import cdk, environment

EXAMPLES = """\
  python -m operate deploy --environment dev
  python -m operate deploy --environment dev --approved
  python -m operate deploy --environment dev video-router-dev-data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument("--approved", action="store_true", help="don't ask before permissions are widened")
    parser.add_argument(
        "arguments", nargs="*", help="stacks, or options of `cdk deploy` after --; by default all stacks"
    )


def run(options: argparse.Namespace) -> int:
    """Run `cdk deploy` and return its exit status."""
    approved = ["--require-approval", "never"] if options.approved else []
    return cdk.run_in_account(options.environment, ["deploy", *(options.arguments or ["--all"]), *approved])
