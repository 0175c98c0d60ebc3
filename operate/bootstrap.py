"""Prepare an AWS account and Region for the CDK, once.

Runs `cdk bootstrap` for the account and Region of an environment, with your
credentials.
"""

from __future__ import annotations

import argparse

from operate import cdk, environment

EXAMPLES = """\
  python -m operate bootstrap --environment dev
  python -m operate bootstrap --environment dev -- \\
    --cloudformation-execution-policies arn:aws:iam::444455556666:policy/deploy
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument("arguments", nargs="*", help="options of `cdk bootstrap`, after --")


def run(options: argparse.Namespace) -> int:
    """Run `cdk bootstrap` and return its exit status."""
    return cdk.run_in_account(options.environment, ["bootstrap", *options.arguments])
