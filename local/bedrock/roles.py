"""Checks against IAM: whether Bedrock can assume a role, and what callers and service roles may do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import urllib3
from botocore.exceptions import ClientError

from local.bedrock.errors import ServiceError
from local.keys import HEADER

SERVICE = "bedrock.amazonaws.com"


@dataclass(frozen=True)
class Need:
    """A permission that a call needs: one action on one resource.

    `role` is the service role that needs it; empty means the caller.
    """

    action: str
    resource: str
    context: Mapping[str, Any] = field(default_factory=dict)
    role: str = ""


Authorize = Callable[[str, Sequence[Need]], str]
"""Takes a caller (access key or role ARN) and its needs; returns the text of the denial, or ''.

Raises ServiceError for an unknown access key.
"""


class Roles:
    """The roles of the account, read with an IAM client."""

    def __init__(self, iam: Any) -> None:
        self._iam = iam

    def is_assumable(self, role_arn: str) -> bool:
        """Return whether the role exists and its trust policy lets Bedrock assume it."""
        try:
            role = self._iam.get_role(RoleName=role_arn.rpartition("/")[2])["Role"]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchEntity", "NoSuchEntityException"):
                return False
            raise
        return role.get("Arn") == role_arn and trusts_bedrock(role.get("AssumeRolePolicyDocument", {}))


def trusts_bedrock(document: dict[str, Any] | str) -> bool:
    """Return whether a trust policy allows Bedrock `sts:AssumeRole`; conditions are ignored."""
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


def policies_at(endpoint: str, ca_bundle: str | None, token: str) -> Authorize:
    """Return a check against the policies of the local AWS, which also records the calls.

    `token` is that of the emulator's control paths. See `local/emulator/access.py`.
    """
    pool = urllib3.PoolManager(ca_certs=ca_bundle, maxsize=32)

    def authorize(caller: str, needs: Sequence[Need]) -> str:
        calls = [{"action": n.action, "resource": n.resource, "context": dict(n.context)} for n in needs]
        answer = pool.request(
            "POST",
            f"{endpoint}/_iam/calls",
            json={"caller": caller, "calls": calls},
            headers={HEADER: token},
        )
        if answer.status != 200:
            raise RuntimeError(f"The emulator answered {answer.status} to a question about permissions.")
        denied = answer.json()
        if not denied:
            return ""
        if "unknown" in denied:
            raise ServiceError(
                "UnrecognizedClientException", "The security token included in the request is invalid."
            )
        return (
            f"User: {denied['role']} is not authorized to perform: {denied['action']} on resource: "
            f"{denied['resource']} because no identity-based policy allows the {denied['action']} action"
        )

    return authorize


class RoleS3:
    """S3 with the permissions of a service role."""

    def __init__(self, s3: Any, role: str, authorize: Authorize) -> None:
        self._s3, self._role, self._authorize = s3, role, authorize

    def get_object(self, *, Bucket: str, Key: str) -> Any:  # noqa: N803 - S3's own
        """Check the role's permission, then call GetObject."""
        self._need("s3:GetObject", f"{Bucket}/{Key}")
        return self._s3.get_object(Bucket=Bucket, Key=Key)

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> Any:  # noqa: N803 - S3's own
        """Check the role's permission, then call PutObject."""
        self._need("s3:PutObject", f"{Bucket}/{Key}")
        return self._s3.put_object(Bucket=Bucket, Key=Key, Body=Body)

    def list_objects_v2(self, *, Bucket: str, Prefix: str, **more: Any) -> Any:  # noqa: N803 - S3's own
        """Check the role's permission, then call ListObjectsV2."""
        self._need("s3:ListBucket", Bucket, {"s3:prefix": Prefix})
        return self._s3.list_objects_v2(Bucket=Bucket, Prefix=Prefix, **more)

    def _need(self, action: str, resource: str, context: Mapping[str, Any] | None = None) -> None:
        need = Need(action, f"arn:aws:s3:::{resource}", context or {}, self._role)
        if denied := self._authorize(self._role, [need]):
            raise PermissionError(denied)
