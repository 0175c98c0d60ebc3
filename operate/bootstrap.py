"""Prepare an AWS account and Region for the CDK, once.

Runs `cdk bootstrap` for the account and Region of an environment, with your
credentials and the qualifier in its settings. A qualifier of its own separates
the environment from others in the account, so it needs execution policies: with
the default, AdministratorAccess, a deployment of one could change the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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
        OperateError: The environment has a qualifier of its own, and no execution policies of its account.
    """
    settings = load(options.environment)
    given, own = _policies(options.arguments), f"arn:aws:iam::{settings.account}:policy/"
    is_limited = bool(given) and all(arn.startswith(own) and arn != own for arn in given)
    if settings.bootstrap_qualifier != DEFAULT_QUALIFIER and not is_limited:
        raise OperateError(
            f'bootstrap_qualifier is "{settings.bootstrap_qualifier}", and {EXECUTION_POLICIES} names '
            f"{', '.join(given) or 'nothing'}. Allowed are policies of the account, {own}...; with none, the "
            "CDK takes AdministratorAccess, which reaches other environments of the account.",
            advice=f"Create the policies with `make execution-policy ENV={options.environment}`, and "
            f"pass them: `python -m operate bootstrap --environment {options.environment} -- "
            f"{EXECUTION_POLICIES} ARNS` (docs/ci.md).",
        )
    return cdk.run_in_account(options.environment, ["bootstrap", *options.arguments])


def _policies(arguments: Sequence[str]) -> list[str]:
    """Return the execution policies among options of `cdk bootstrap`, which ignores empty ones."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(EXECUTION_POLICIES, nargs="*", action="extend", default=[], dest="policies")
    values = parser.parse_known_args(list(arguments))[0].policies
    return [arn.strip() for value in values for arn in value.split(",") if arn.strip()]
