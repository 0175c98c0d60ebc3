"""Whose credentials the shell has, and what is said if they are not those of the environment's account."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from operate import account
from operate.errors import OperateError
from stacks.settings import load


class Sts:
    """Answers GetCallerIdentity."""

    def __init__(self, answer: dict[str, str] | Exception) -> None:
        self.answer = answer

    def get_caller_identity(self) -> dict[str, str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def identity(number: str) -> dict[str, str]:
    return {"Account": number, "Arn": f"arn:aws:sts::{number}:assumed-role/Deployer/me"}


def test_credentials_of_the_account_are_right() -> None:
    dev = load("dev")
    account.check(dev, Sts(identity(dev.account)))


EXPIRED: Any = {"Error": {"Code": "ExpiredToken", "Message": "The security token is expired"}}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (identity("999988887777"), "credentials of the account 999988887777 (arn:aws:sts::999988887777:"),
        (NoCredentialsError(), "no AWS credentials that work: Unable to locate credentials"),
        (ClientError(EXPIRED, "GetCallerIdentity"), "The security token is expired"),
    ],
)
def test_other_credentials_are_told_with_both_accounts(answer: dict[str, str] | Exception, told: str) -> None:
    dev = load("dev")
    with pytest.raises(OperateError) as raised:
        account.check(dev, Sts(answer))
    assert told in str(raised.value)
    assert f"the account {dev.account}" in raised.value.advice
    assert "environments/dev.toml" in raised.value.advice
