"""Asks IAM whether a role exists and trusts Bedrock."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import ClientError

SERVICE = "bedrock.amazonaws.com"


class Roles:
    """Looks roles up with an IAM client."""

    def __init__(self, iam: Any) -> None:
        self._iam = iam

    def trusting_bedrock(self, role_arn: str) -> bool:
        """Whether the role exists and its trust policy lets Bedrock assume it."""
        try:
            role = self._iam.get_role(RoleName=role_arn.rpartition("/")[2])["Role"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchEntity", "NoSuchEntityException"):
                return False
            raise
        return role.get("Arn") == role_arn and trusts_bedrock(role.get("AssumeRolePolicyDocument", {}))


def trusts_bedrock(document: dict[str, Any] | str) -> bool:
    """Whether a trust policy allows Bedrock `sts:AssumeRole`; its conditions are not looked at."""
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    statements = policy.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        actions = statement.get("Action", [])
        if (
            statement.get("Effect") == "Allow"
            and SERVICE in ([services] if isinstance(services, str) else services)
            and "sts:AssumeRole" in ([actions] if isinstance(actions, str) else actions)
        ):
            return True
    return False
