"""Grants in the synthesized policies, and IAM's decision about a call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.iam import function_checks, iam_evaluator
from tests.permissions.calls import Call, masked
from tests.stacks.assembly import Assembly, Resource
from tests.stacks.environments import ALL, settings_of

# The CDK's expression for a state machine's name in its ARN, for a map's executions.
_NAME_OF = re.compile(r"\{'Fn::Select': \[6, \{'Fn::Split': \[':', '<(\w+)>'\]\}\]\}")


@dataclass(frozen=True, order=True)
class Grant:
    """One action of a role on one resource in a policy. `conditions` is JSON, `effect` Allow or Deny."""

    role: str
    action: str
    resource: str
    conditions: str = "{}"
    effect: str = "Allow"

    def allows(self, call: Call) -> bool:
        """Return whether this grant alone allows a call."""
        return call.role == self.role and allowed([self], call)

    def __str__(self) -> str:
        """Return a line for a test's message."""
        effect = "Deny " if self.effect == "Deny" else ""
        return f"{self.role}: {effect}{self.action} on {self.resource}" + (
            f" where {self.conditions}" if self.conditions != "{}" else ""
        )

    @cached_property
    def statement(self) -> Any:
        """Return the grant as a statement for the evaluation."""
        (found,) = iam_evaluator.parse_policy_document(
            {
                "Statement": {
                    "Effect": self.effect,
                    "Action": self.action,
                    "Resource": self.resource,
                    "Condition": json.loads(self.conditions),
                }
            }
        )
        return found


def allowed(grants: Iterable[Grant], call: Call) -> bool:
    """Return IAM's decision: one Allow is enough, unless there is a Deny."""
    context = iam_evaluator.EvalContext(
        principal_arn="arn:aws:sts::{account}:assumed-role/role/session",
        principal_type="AssumedRole",
        principal_account="{account}",
        action=call.action,
        resource_arn=call.resource,
        region="us-east-1",
        service_context={key.lower(): value for key, value in call.context},
    )
    asked = [g.statement for g in grants if g.action == call.action or "*" in g.action]
    decision = iam_evaluator.evaluate(context, [asked]).decision
    return bool(decision == "Allow")


@dataclass(frozen=True)
class Environment:
    """One environment's roles."""

    assembly: Assembly

    @property
    def name(self) -> str:
        """Return the name of the settings file or the variant."""
        return self.assembly.environment

    def plain(self, value: Any) -> Any:
        """A template's value with its references resolved and masked, as calls are."""
        text = _NAME_OF.sub(r"<\1.Name>", json.dumps(self.assembly.plain(value)))
        return self._by_name(_masked(json.loads(text), self.assembly.settings.owner))

    def _by_name(self, value: Any) -> Any:
        """A value in which a state machine's ARN, which a policy may write out, is its reference."""
        for machine in self.assembly.resources("AWS::StepFunctions::StateMachine"):
            if name := machine.properties.get("StateMachineName"):
                arn = f"arn:aws:states:us-east-1:{self.assembly.settings.account}:stateMachine:{name}"
                if value == masked(arn, self.assembly.settings.owner):
                    return f"<{machine.name}>"
        return value

    @cached_property
    def roles(self) -> Mapping[str, Resource]:
        """The roles by name; no two stacks have one of the same name."""
        found = self.assembly.resources("AWS::IAM::Role")
        by_name = {role.name: role for role in found}
        assert len(by_name) == len(found)
        return by_name

    @cached_property
    def grants(self) -> Mapping[str, frozenset[Grant]]:
        """Return all grants by role, and what is denied to it."""
        return {name: frozenset(self._of(name, role)) for name, role in self.roles.items()}

    def trusted(self, role: str) -> str:
        """The service that assumes a role; empty where there is no such role here."""
        if role not in self.roles:
            return ""
        (statement,) = self.roles[role].properties["AssumeRolePolicyDocument"]["Statement"]
        return str(statement["Principal"]["Service"])

    def _of(self, name: str, role: Resource) -> Iterator[Grant]:
        for statement in self.assembly.role_statements(role):
            conditions = json.dumps(self.plain(statement.conditions), sort_keys=True)
            for action in statement.actions:
                for resource in statement.resources:
                    yield Grant(name, action, self.plain(resource), conditions, statement.effect)

    def refused(self) -> Iterator[str]:
        """Yield the functions that Lambda would refuse, and why."""
        checks = function_checks.Checks(iam_evaluator, "{account}", "us-east-1")
        for function in self.assembly.resources("AWS::Lambda::Function"):
            properties = self.plain(function.properties)
            role = str(properties["Role"]).removeprefix("<").removesuffix(".Arn>")
            if text := checks.refusal(properties, [[grant.statement for grant in self.grants[role]]]):
                yield f"{self.name}: {function.name}: {text}"

    def without(self, *grants: Grant, instead: Iterable[Grant] = ()) -> Environment:
        """Return a copy with other policies, to test that the proof fails."""
        changed = replace(self)
        roles = {
            role: found - set(grants) | {g for g in instead if g.role == role}
            for role, found in self.grants.items()
        }
        changed.__dict__["grants"] = roles
        return changed


def _masked(value: Any, owner: str) -> Any:
    match value:
        case dict():
            return {_masked(key, owner): _masked(inner, owner) for key, inner in value.items()}
        case list():
            return [_masked(inner, owner) for inner in value]
        case str():
            if re.fullmatch(r"\d{12}", value):
                return "{account}"
            return "{owner}" if value == owner else masked(value, owner)
        case _:
            return value


def environments(folder: Path) -> list[Environment]:
    """Return all environments synthesized to a folder."""
    return [Environment(Assembly(name, settings_of(name), folder / name)) for name in ALL]
