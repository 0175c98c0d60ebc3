"""What IAM was asked: every call of a role, with its resource, its condition keys and the answer.

- `GET /_iam/calls`: the calls so far, and the resources of all stacks, by which whoever reads it can tell
  what a name belongs to.
- `POST /_iam/calls`: the calls that another double was asked for, Bedrock's, by an access key or in the name
  of a role that Bedrock was given. They are recorded and answered by the role's policies, as MiniStack does
  with its own: `{"caller": "ASIA…", "calls": [{"action": …, "resource": …, "context": {…}}]}`.

MiniStack's reset forgets it all. Root, whose keys tests and people use, may do anything and is not recorded.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core import iam_evaluator
from ministack.services import cloudformation, sts

ALLOWED = "Allow"
# The policies go before the role does: what a function still calls then is refused, and nothing is missing.
GONE = "RoleGone"
ACCOUNT, REGION = "000000000000", "us-east-1"

_enforce = iam_evaluator.enforce


class Record:
    """The calls of roles, each once however often it was made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, dict[str, Any]] = {}
        self._resources: dict[str, dict[str, str]] = {}

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._calls.clear()
            self._resources.clear()

    def add(
        self, role: str, action: str, resource: str, context: Mapping[str, Any] | None, decision: str
    ) -> None:
        """Take down one call. Resources are looked at while they are there: a stack may be gone before
        anybody reads the record."""
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
        """The calls and what is known of the stacks' resources, by physical id."""
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
    """MiniStack's decision on a call, recorded; None where the call is allowed."""
    denied = _enforce(access_key_id, iam_action, service, region, resource_arn, service_context)
    if role := _role_of(access_key_id):
        decision = ALLOWED
        if denied:
            gone = not iam_evaluator._gather_role_policies(role, ACCOUNT)
            decision = GONE if gone else getattr(denied, "decision", "NoCredentials")
        record.add(role, iam_action, resource_arn, service_context, decision)
    return denied


def _role_of(access_key_id: str) -> str:
    """The name of the role that a session is of; empty for root."""
    session = sts._sessions.get(access_key_id or "")
    return iam_evaluator._role_name_from_assumed_arn(session["Arn"]) if session else ""


def ask(wanted: Mapping[str, Any]) -> dict[str, str]:
    """Record calls on another double, and answer with the first that IAM does not allow; empty if none."""
    caller = str(wanted["caller"])
    role = caller.rpartition("/")[2] if caller.startswith("arn:") else _role_of(caller)
    if not role:
        return {}
    policies = iam_evaluator._gather_role_policies(role, ACCOUNT)
    denied: dict[str, str] = {}
    for call in wanted["calls"]:
        context = iam_evaluator.EvalContext(
            principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/session",
            principal_type="AssumedRole",
            principal_account=ACCOUNT,
            action=call["action"],
            resource_arn=call["resource"],
            region=REGION,
            service_context={key.lower(): value for key, value in call["context"].items()},
        )
        decision = iam_evaluator.evaluate(context, policies).decision if policies else GONE
        record.add(role, call["action"], call["resource"], call["context"], decision)
        if decision != ALLOWED and not denied:
            denied = {"role": role, "action": call["action"], "resource": call["resource"]}
    return denied


iam_evaluator.enforce = enforce
