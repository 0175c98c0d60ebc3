"""What a check found, and what becomes of a check that AWS refuses.

Every call of every check reads. `READS` lists them: it is what the credentials must be allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import code, described
from operate.errors import OperateError

type Level = Literal["ok", "warning", "problem", "skipped"]

# The operations of all checks by their prefix in IAM, where the permission has the operation's name.
READS = {
    "bedrock": (
        "GetCustomModelDeployment",
        "GetFoundationModel",
        "GetFoundationModelAvailability",
        "GetInferenceProfile",
        "GetProvisionedModelThroughput",
        "ListCustomModelDeployments",
        "ListCustomModels",
        "ListEvaluationJobs",
        "ListModelCustomizationJobs",
        "ListModelInvocationJobs",
        "ListProvisionedModelThroughputs",
        "ListTagsForResource",
    ),
    "cloudformation": ("DescribeStacks", "ListStackResources"),
    "dynamodb": ("GetItem", "Scan"),
    "lambda": ("GetAccountSettings",),
    "s3": ("GetObject",),
    "servicequotas": ("GetServiceQuota",),
    "ssm": ("GetParameter",),
    "states": ("DescribeExecution", "ListExecutions"),
    "sts": ("GetCallerIdentity",),
}

_DENIALS = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
# IAM's text: the user "is not authorized to perform" an action "on resource" an ARN.
_PERMISSION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")
# What the test doubles answer to a call that they don't know.
_UNKNOWN = frozenset({"InvalidAction", "NotImplemented", "NotModelledException", "UnknownOperationException"})
SKIPPED = "not in the local system"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: how it went; a problem decides the exit status.
        check: its name.
        found: what was found, in one sentence.
        step: what to do next; empty if nothing is.
        command: a command for it that is to be copied whole.
    """

    level: Level
    check: str
    found: str
    step: str = ""
    command: str = ""


def attempted(check: str, findings: Iterable[Finding], *, local: bool) -> Iterator[Finding]:
    """Yield a check's findings. If a call fails, yield those before it, and that the check was not made.

    Args:
        check: the name of the check.
        findings: what it yields; AWS is called meanwhile.
        local: whether this is the local system, whose test doubles don't know every call.
    """
    try:
        yield from findings
    except (ClientError, BotoCoreError) as error:
        yield _failed(check, error, local=local)
    except OperateError as error:
        if isinstance(error.__cause__, ClientError) and code(error.__cause__) in _DENIALS:
            yield _failed(check, error.__cause__, local=local)
        else:
            yield Finding("warning", check, f"Not checked. {error}", error.advice)


def _failed(check: str, error: ClientError | BotoCoreError, *, local: bool) -> Finding:
    if not isinstance(error, ClientError):
        return Finding("warning", check, f"Not checked: {error}", "Try again.")
    if code(error) in _DENIALS:
        needed = permission(error)
        return Finding(
            "warning",
            check,
            f"Not checked: these credentials lack {needed}.",
            f"Allow {needed}, or run it with credentials that have it.",
        )
    if local and code(error) in _UNKNOWN:
        return Finding("skipped", check, f"{error.operation_name} is {SKIPPED}.")
    return Finding("warning", check, f"Not checked: {error.operation_name}: {described(error)}", "Try again.")


def permission(error: ClientError) -> str:
    """Return the permission that a refused call needs: the one that the error names, or the call's own."""
    named = _PERMISSION.search(str(error))
    if named:
        return named[1]
    name = str(error.operation_name)
    return next((f"{service}:{name}" for service, names in READS.items() if name in names), name)
