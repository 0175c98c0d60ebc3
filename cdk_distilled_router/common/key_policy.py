"""Statements of a KMS key's policy for AWS services that use the key without one of our roles."""

from __future__ import annotations

from typing import Any

from cdk_distilled_router.common.vended_logs import PREFIX, SERVICES

Statement = dict[str, Any]


def services(account: str, region: str, *names: str, runtime: bool) -> list[Statement]:
    """Return the statements.

    Log groups are matched by name, which begins with the stack's name or, for state machines, the owner's.

    Args:
        account: account of the stacks.
        region: Region of the stacks.
        names: names of stacks and owners, or what these begin with before a hyphen.
        runtime: whether the key also encrypts functions, logs and state machines.
    """
    alarms = _statement(
        "AlarmsPublish",
        "cloudwatch.amazonaws.com",
        ["kms:Decrypt", "kms:GenerateDataKey*"],
        {"StringEquals": {"aws:SourceAccount": account}},
    )
    if not runtime:
        return [alarms]
    groups = f"arn:aws:logs:{region}:{account}:log-group:"
    places = ("", *(f"{PREFIX}/{service}/" for service in SERVICES))
    logs = _statement(
        "LogGroups",
        f"logs.{region}.amazonaws.com",
        ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        {
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": [
                    f"{groups}{place}{name}-*" for name in dict.fromkeys(names) for place in places
                ]
            }
        },
    )
    # The state machine's role generates the data key for its logs, and the delivery service decrypts with the
    # same context (Step Functions developer guide, encryption-at-rest, step 3).
    delivery = _statement(
        "StateMachineLogs",
        "delivery.logs.amazonaws.com",
        ["kms:Decrypt*"],
        {"StringEquals": {"kms:EncryptionContext:SourceArn": f"arn:aws:logs:{region}:{account}:*"}},
    )
    return [alarms, logs, delivery]


def _statement(sid: str, service: str, actions: list[str], conditions: dict[str, Any]) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": actions,
        "Resource": "*",
        "Condition": conditions,
    }
