"""Prepare an AWS account and Region for the CDK, once.

Runs `cdk bootstrap` for the account and Region of an environment, with your
credentials and the qualifier in its settings. A qualifier of its own separates
the environment from others in the account, so it needs execution policies: with
the default, AdministratorAccess, a deployment of one could change the other.
"""

from __future__ import annotations

import argparse

from operate import cdk, environment
from operate.errors import OperateError
from stacks.settings import DEFAULT_QUALIFIER, load

EXECUTION_POLICIES = "--cloudformation-execution-policies"

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
    """Run `cdk bootstrap` and return its exit status.

    Raises:
        OperateError: The environment has a qualifier of its own, and no execution policies are given.
    """
    qualifier = load(options.environment).bootstrap_qualifier
    is_limited = any(option.startswith(EXECUTION_POLICIES) for option in options.arguments)
    if qualifier != DEFAULT_QUALIFIER and not is_limited:
        raise OperateError(
            f'bootstrap_qualifier is "{qualifier}", and {EXECUTION_POLICIES} is missing. Without it, '
            "CloudFormation gets AdministratorAccess, also to other environments of the account.",
            advice=f"Create the policies with `make execution-policy ENV={options.environment}`, and "
            f"pass them: `python -m operate bootstrap --environment {options.environment} -- "
            f"{EXECUTION_POLICIES} ARNS` (docs/ci.md).",
        )
    return cdk.run_in_account(options.environment, ["bootstrap", *options.arguments])
