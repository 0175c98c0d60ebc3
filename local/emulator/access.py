"""A record of every IAM decision: a role's call with its resource, condition keys and the decision.

- `GET /_iam/calls`: the calls so far, and the resources of all stacks by physical id.
- `POST /_iam/calls`: checks and records calls that the Bedrock stand-in receives. The caller is an access key
  or the ARN of a role that Bedrock assumes. The role's and the bucket's policies decide, as for MiniStack's
  own services:
  `{"caller": "ASIA…", "calls": [{"action": …, "resource": …, "context": {…}}]}`.

MiniStack's reset clears the record. Root, whose keys tests and people use, may do anything; its calls are not
recorded. A function's credentials are as secret as root's: see `execution_credentials`.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core import iam_evaluator, lambda_runtime
from ministack.services import cloudformation, iam, lambda_svc, s3, sts

ALLOWED = "Allow"
# CloudFormation deletes the policies before the role. A function that still runs is denied then, although no
# permission is missing.
GONE = "RoleGone"
ACCOUNT, REGION = "000000000000", os.environ.get("MINISTACK_REGION", "us-east-1")

_BUCKETS = "arn:aws:s3:::"

_enforce = iam_evaluator.enforce
_execution_credentials = lambda_runtime.execution_credentials
_salt = secrets.token_hex(16)
_resolve_condition_key = iam_evaluator._resolve_condition_key


class Record:
    """The calls of roles; equal calls are recorded once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, dict[str, Any]] = {}
        self._resources: dict[str, dict[str, str]] = {}

    def reset(self) -> None:
        """Clear the record."""
        with self._lock:
            self._calls.clear()
            self._resources.clear()

    def add(
        self, role: str, action: str, resource: str, context: Mapping[str, Any] | None, decision: str
    ) -> None:
        """Record a call, and the resources of the stacks, which may be deleted before the record is read."""
        call = {
            "role": role,
            "action": action,
            "resource": resource,
            "context": {key: value for key, value in (context or {}).items() if value},
            "decision": decision,
        }
        key = json.dumps(call, sort_keys=True, default=str)
        with self._lock:
            if key not in self._calls:
                self._calls[key] = call
                self._resources |= dict(_resources())

    def read(self) -> dict[str, Any]:
        """Return the calls, and the stacks' resources by physical id."""
        with self._lock:
            self._resources |= dict(_resources())
            return {"calls": list(self._calls.values()), "resources": dict(self._resources)}


def _resources() -> Iterator[tuple[str, dict[str, str]]]:
    for (_, _, name), stack in list(cloudformation._stacks._data.items()):
        for logical_id, found in list(stack.get("_resources", {}).items()):
            if physical_id := found.get("PhysicalResourceId"):
                kind = str(found.get("ResourceType"))
                yield str(physical_id), {"stack": str(name), "logical_id": logical_id, "type": kind}


record = Record()


def enforce(
    access_key_id: str,
    iam_action: str,
    service: str,
    region: str,
    resource_arn: str = "*",
    service_context: Mapping[str, Any] | None = None,
) -> Any:
    """Record and return MiniStack's decision on a call; None means allowed."""
    denied = _enforce(access_key_id, iam_action, service, region, resource_arn, service_context)
    if role := _role_of(access_key_id):
        decision = ALLOWED
        if denied:
            gone = not iam_evaluator._gather_role_policies(role, ACCOUNT)
            decision = GONE if gone else getattr(denied, "decision", "NoCredentials")
        record.add(role, iam_action, resource_arn, service_context, decision)
    return denied


def _role_of(access_key_id: str) -> str:
    """Return the name of the role of a session; empty for root."""
    session = sts._sessions.get(access_key_id or "")
    return iam_evaluator._role_name_from_assumed_arn(session["Arn"]) if session else ""


def authorize(request: Mapping[str, Any]) -> dict[str, str]:
    """Record calls that the Bedrock stand-in received.

    Returns:
        The first denied call, or nothing if all are allowed. For an access key that the emulator did not give
        out: that it is `unknown`.
    """
    caller = str(request["caller"])
    role = caller.rpartition("/")[2] if caller.startswith("arn:") else _role_of(caller)
    if not role:
        return {} if caller == os.environ["AWS_ACCESS_KEY_ID"] else {"unknown": "access key"}
    policies = iam_evaluator._gather_role_policies(role, ACCOUNT)
    tags = (iam._roles.get_scoped(ACCOUNT, None, role) or {}).get("Tags") or []
    denied: dict[str, str] = {}
    for call in request["calls"]:
        context = iam_evaluator.EvalContext(
            principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/session",
            principal_type="AssumedRole",
            principal_account=ACCOUNT,
            action=call["action"],
            resource_arn=call["resource"],
            region=REGION,
            service_context={key.lower(): value for key, value in call["context"].items()},
            secure_transport=True,
            principal_keys={f"aws:principaltag/{tag['Key'].lower()}": tag["Value"] for tag in tags},
        )
        decision = _decision(context, policies) if policies else GONE
        record.add(role, call["action"], call["resource"], call["context"], decision)
        if decision != ALLOWED and not denied:
            denied = {"role": role, "action": call["action"], "resource": call["resource"]}
    return denied


def _decision(context: Any, policies: Any) -> str:
    """Return the decision of a role's policies, and of the bucket's policy for an object."""
    result = iam_evaluator.evaluate(context, policies)
    if found := s3.bucket_policy_for_arn(context.resource_arn):
        result = iam_evaluator.combine_resource_policy(result, context, *found)
    return str(result.decision)


def resolve_condition_key(key: str, context: Any) -> Any:
    """Return the value of a condition key. The account of a bucket is its owner's, not the caller's."""
    arn = str(context.resource_arn)
    if key.lower() in ("aws:resourceaccount", "s3:resourceaccount") and arn.startswith(_BUCKETS):
        bucket = arn.removeprefix(_BUCKETS).partition("/")[0]
        return s3._bucket_owner_account(bucket) or context.principal_account
    return _resolve_condition_key(key, context)


def execution_credentials(function: Mapping[str, Any]) -> Any:
    """Return the credentials of a function's role.

    MiniStack derives them from the ARNs of function and role, which anybody could do. Here they depend on a
    secret as well.
    """
    return _execution_credentials({**function, "FunctionArn": f"{function['FunctionArn']}:{_salt}"})


iam_evaluator.enforce = enforce
lambda_runtime.execution_credentials = lambda_svc.execution_credentials = execution_credentials
iam_evaluator._resolve_condition_key = resolve_condition_key
