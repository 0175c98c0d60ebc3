"""The policy of the KMS key, whether the data stack creates the key or the team brings its own.

`python -m stacks.keys ENVIRONMENT` prints the policy that your own key (`encryption.key_arn`) needs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cdk_distilled_router.common.key_policy import Statement, services
from distilled_router.visible import visible
from stacks.settings import Settings, SettingsError, load

# What follows CreateKey at once, also when that deployment rolls back.
_CREATION = ("EnableKeyRotation", "PutKeyPolicy", "ScheduleKeyDeletion")
# What the creator of a table, a topic, a function or a state machine needs on its key; validated in an
# account (aws-samples/sample-autonomous-cloud-coding-agents).
USE = ("CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey")


def policy(settings: Settings) -> dict[str, Any]:
    """Return the whole key policy: the account's IAM policies decide for roles, statements for services."""
    account = {
        "Sid": "AccountDecidesByIam",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{settings.account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    runtime = settings.encryption.runtime_key
    statements = services(settings.account, settings.region, settings.owner, runtime=runtime)
    return {"Version": "2012-10-17", "Statement": [account, *statements]}


def deployment(account: str, region: str, qualifier: str) -> Statement:
    """Return the statement of a key that the stacks create: CloudFormation's role of the bootstrap uses it.

    The role's policies know the key by its tag, and a tag may count for authorization only after five minutes
    (KMS developer guide, abac). A key's policy counts at once. KMS refuses a policy with a role that doesn't
    exist, so a condition names it, and other ways to deploy work as without this statement. The account as
    the principal would only let IAM policies decide (KMS developer guide, key-policy-default).
    """
    role = f"arn:aws:iam::{account}:role/cdk-{qualifier}-cfn-exec-role-{account}-{region}"
    return {
        "Sid": "CloudFormationDeploys",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": [f"kms:{name}" for name in (*_CREATION, *USE)],
        "Resource": "*",
        "Condition": {
            "StringEquals": {"kms:CallerAccount": account},
            "ArnEquals": {"aws:PrincipalArn": role},
        },
    }


def main() -> None:
    """Print an environment's policy."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        settings = load(sys.argv[1])
    except SettingsError as error:
        sys.exit(visible(str(error)))
    sys.stdout.write(json.dumps(policy(settings), indent=2) + "\n")


if __name__ == "__main__":
    main()
