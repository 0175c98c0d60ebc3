"""Lambda functions as AWS creates them: see `function_checks`; and their network interfaces.

MiniStack has no network interfaces. Here each function in a VPC has some. Lambda deletes them with the role's
permission a while after the function has left the VPC; without the permission they stay, and subnets and
security groups can't be deleted (aws-cdk #34400). `GET /_lambda/interfaces` returns the functions whose
interfaces are `held`, `leaving` or `left` behind.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import access  # type: ignore[import-not-found]  # this folder is on the path when it runs
import function_checks  # type: ignore[import-not-found]  # as above
from ministack.core import iam_evaluator
from ministack.services import lambda_svc

TYPE = "AWS::Lambda::Function"
LEAVING_SECONDS = 2.0  # up to 40 minutes on AWS

_checks = function_checks.Checks(iam_evaluator, access.ACCOUNT, access.REGION)
_create, _configure = lambda_svc._create_function, lambda_svc._update_config


class Functions:
    """The functions' checks and interfaces."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interfaces: dict[str, str] = {}

    def install(self) -> None:
        """Check what Lambda's own API creates and changes, as well as what CloudFormation does."""
        lambda_svc._create_function = self.create
        lambda_svc._update_config = self.configure

    def reset(self) -> None:
        """Forget all interfaces."""
        with self._lock:
            self._interfaces.clear()

    def interfaces(self) -> dict[str, list[str]]:
        """Return the functions by the state of their interfaces.

        CloudFormation deletes a function before its role, and waits until its interfaces are gone.
        """
        existing = {key[-1] for key in lambda_svc._functions._data}
        with self._lock:
            found: dict[str, list[str]] = {"held": [], "leaving": [], "left": []}
            for name, state in sorted(self._interfaces.items()):
                if state != "held" or name in existing:
                    found[state].append(name)
            return found

    def create(self, data: dict[str, Any]) -> Any:
        """Create a function unless Lambda would refuse it."""
        refused = refusal(data)
        return _refused(refused) if refused else _create(data)

    def configure(self, name: str, data: dict[str, Any]) -> Any:
        """Change a function unless Lambda would refuse it."""
        known = lambda_svc._functions.get(name) or {"config": {}}
        refused = refusal({"Role": known["config"].get("Role", ""), **data})
        return _refused(refused) if refused else _configure(name, data)

    def placed(self, name: str, properties: Mapping[str, Any]) -> None:
        """Note that CloudFormation has created or updated a function."""
        is_inside = bool((properties.get("VpcConfig") or {}).get("SubnetIds"))
        with self._lock:
            if is_inside:
                self._interfaces[name] = "held"
            elif self._interfaces.get(name) == "held":
                self._interfaces[name] = "leaving"
                timer = threading.Timer(LEAVING_SECONDS, self._leave, [name, str(properties["Role"])])
                timer.daemon = True
                timer.start()

    def _leave(self, name: str, role: str) -> None:
        deleted = _checks.allows(_policies(role), "DeleteNetworkInterface")
        with self._lock:
            if self._interfaces.get(name) == "leaving":
                self._interfaces[name] = "left"
                if deleted:
                    del self._interfaces[name]


def refusal(function: Mapping[str, Any]) -> str:
    """Return why Lambda refuses a function's properties; empty if it doesn't."""
    return str(_checks.refusal(function, _policies(str(function.get("Role", "")))))


def _policies(role: str) -> Any:
    return iam_evaluator._gather_role_policies(role.rpartition("/")[2], access.ACCOUNT)


def _refused(text: str) -> Any:
    return lambda_svc.error_response_json("InvalidParameterValueException", text, 400)
