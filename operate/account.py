"""Check that the shell's credentials are those of an environment's account, before anything takes time."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from operate.aws import Aws
from operate.errors import OperateError
from stacks.settings import Settings

# Options of the CDK that choose other credentials than those of the shell.
OTHERS = ("--profile", "--role-arn", "-r")


def check(settings: Settings, sts: Any = None) -> None:
    """Check the credentials of this shell.

    Args:
        settings: with its account.
        sts: an STS client. Default: one with the shell's credentials.

    Raises:
        OperateError: There are none, they have expired, or they are of another account.
    """
    advice = (
        f"Use credentials of the account {settings.account}, for example by AWS_PROFILE, or "
        f"correct `account` in {settings.file}."
    )
    try:
        found = (sts or Aws(settings.region).sts).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise OperateError(f"This shell has no AWS credentials that work: {error}", advice=advice) from error
    if found["Account"] != settings.account:
        raise OperateError(
            f"This shell has credentials of the account {found['Account']} ({found['Arn']}), and "
            f"{settings.file} names the account {settings.account}. Nothing was done.",
            advice=advice,
        )
