"""Acknowledging what cdk-nag finds: one finding at a time, each with its reason.

cdk-nag writes a finding with the value that it is about, so the value has to be written as it does.
"""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from constructs import Construct, IConstruct

PACK = "AwsSolutions"


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accept one finding of a construct, e.g. `SF2`. A rule with details isn't matched by its bare name."""
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=f"{PACK}::{PACK}-{rule}", reason=reason))


def acknowledge_resource(role: Construct, resource: Any, reason: str) -> None:
    """Accept that a role's policy names this resource, which holds a wildcard."""
    acknowledge(role, f"IAM5[Resource::{shown(role, resource)}]", reason)


def exported(value: Any, *, of: IConstruct, seen_from: Construct) -> Any:
    """An attribute of a construct as another stack's template refers to it: an import of its export."""
    stack = cdk.Stack.of(of)
    if stack is cdk.Stack.of(seen_from):
        return value
    return stack.export_value(value)


def shown(scope: Construct, value: Any) -> str:
    """A value as cdk-nag writes it: `<LogicalId.Arn>` for an attribute, the export's name for an import."""
    return _text(cdk.Stack.of(scope).resolve(value))


def _text(value: Any) -> str:
    match value:
        case {"Fn::Join": [separator, list(parts)]}:
            return str(separator).join(_text(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::ImportValue": name}:
            return str(name)
        case dict():
            return json.dumps(value, separators=(",", ":"))
        case _:
            return str(value)


def function_versions(function: Construct) -> str:
    """A function's ARN with any version, as the CDK grants it to whoever invokes the function."""
    child = function.node.default_child
    assert isinstance(child, cdk.CfnElement)
    return f"<{cdk.Stack.of(function).get_logical_id(child)}.Arn>:*"
