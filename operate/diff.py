"""Show what a deployment would change.

Runs `cdk diff` with your credentials and deploys nothing. By default it makes
a change set and deletes it, which tells updates from replacements.
"""

from __future__ import annotations

import argparse

from operate import cdk, environment

EXAMPLES = """\
  python -m operate diff --environment dev
  python -m operate diff --environment dev --read-only
  python -m operate diff --environment dev video-router-dev-data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument("--read-only", action="store_true", help="compare templates; create no change set")
    parser.add_argument(
        "arguments", nargs="*", help="stacks, or options of `cdk diff` after --; by default all stacks"
    )


def run(options: argparse.Namespace) -> int:
    """Run `cdk diff` and return its exit status."""
    read_only = ["--method", "template"] if options.read_only else []
    return cdk.run_in_account(options.environment, ["diff", *options.arguments, *read_only])
