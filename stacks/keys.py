"""Who may use the key beside the account's own roles: its policy, for the stacks' key or for a team's own.

`python -m stacks.keys ENVIRONMENT` prints the policy that a key of one's own, `encryption.key_arn`, needs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from stacks.settings import Settings, SettingsError, load

Statement = dict[str, Any]


def policy(settings: Settings) -> dict[str, Any]:
    """The whole policy: the account's IAM decides on its roles, and services are named."""
    account = {
        "Sid": "AccountDecidesByIam",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{settings.account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    runs = settings.encryption.runtime_key
    named = services(settings.account, settings.region, settings.owner, runtime=runs)
    return {"Version": "2012-10-17", "Statement": [account, *named]}


def services(account: str, region: str, owner: str, *, runtime: bool) -> list[Statement]:
    """Its statements for services, which no role can carry for them. The names of log groups begin with the
    owner's: CloudFormation makes them of the stack's. `runtime` where the key encrypts what runs."""
    alarms = _statement(
        "AlarmsPublish",
        "cloudwatch.amazonaws.com",
        ["kms:Decrypt", "kms:GenerateDataKey*"],
        {"StringEquals": {"aws:SourceAccount": account}},
    )
    if not runtime:
        return [alarms]
    groups = f"arn:aws:logs:{region}:{account}:log-group:"
    logs = _statement(
        "LogGroups",
        f"logs.{region}.amazonaws.com",
        ["kms:Encrypt*", "kms:Decrypt*", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Describe*"],
        {
            "ArnLike": {
                "kms:EncryptionContext:aws:logs:arn": [
                    f"{groups}{owner}-*",
                    f"{groups}/aws/vendedlogs/states/{owner}-*",
                ]
            }
        },
    )
    # A state machine's role makes the data key for what is logged, and the delivery opens it by the same
    # context (Step Functions developer guide, encryption-at-rest, step 3).
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


def main() -> None:
    """Print an environment's policy."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        settings = load(sys.argv[1])
    except SettingsError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(policy(settings), indent=2) + "\n")


if __name__ == "__main__":
    main()
