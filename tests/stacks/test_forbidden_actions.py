"""Actions that no role of prod may have: to change the account's logging or prompt routers, or permissions.

The logging configuration is one for an account and Region: a role that writes it overwrites that of every
other team, and a role that deletes it ends their audit. A prompt router takes no custom model, so no release
can use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import botocore.session
import pytest

from tests.stacks.assembly import Assembly, Statement

WORDS = ("ModelInvocationLogging", "PromptRouter")
OTHERS = (
    *("iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePolicy", "iam:UpdateAssumeRolePolicy"),
    *("dynamodb:DeleteTable", "kms:ScheduleKeyDeletion", "s3:DeleteBucket", "s3:PutBucketPolicy"),
)


def forbidden() -> set[str]:
    """Return the actions; those of Bedrock as botocore names them."""
    operations = botocore.session.get_session().get_service_model("bedrock").operation_names
    found = {f"bedrock:{name}" for name in operations if any(word in name for word in WORDS)}
    assert len(found) > len(WORDS)
    return found | set(OTHERS)


def allowed(statements: Iterable[Statement], actions: Iterable[str]) -> set[str]:
    """Return which of the actions the statements allow on any resource, compared as IAM does."""
    patterns = {
        pattern.lower()
        for statement in statements
        if statement.effect == "Allow"
        for pattern in statement.actions
    }
    return {action for action in actions if any(fnmatchcase(action.lower(), each) for each in patterns)}


def test_no_role_may_do_what_is_forbidden(assemblies: Mapping[str, Assembly]) -> None:
    prod = assemblies["prod"]
    roles = prod.resources("AWS::IAM::Role")
    assert len(roles) > 10
    found = {role.name: allowed(prod.role_statements(role), forbidden()) for role in roles}
    assert {name: actions for name, actions in found.items() if actions} == {}


@pytest.mark.parametrize(
    "action", ["bedrock:*", "bedrock:Put*", "BEDROCK:deletepromptrouter", "*", "iam:?ttachRolePolicy"]
)
def test_a_wildcard_that_covers_one_is_found(action: str) -> None:
    statement = Statement("Allow", frozenset([action]), frozenset(["*"]), {}, {})
    assert allowed([statement], forbidden())
