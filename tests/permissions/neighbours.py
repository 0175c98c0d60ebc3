"""Calls that a role must not make: each of its calls with one part changed.

Another account's resource, another team's, one without the owner's tag, another service for a role or a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from distilled_router.release.route import DECLARED, RELEASE, ROUTE, WAIT
from tests.permissions.calls import LEADING_KEYS, REQUEST_TAG, RESOURCE_TAG, Call
from tests.permissions.reference import keys, kind_of, level

OTHER_ACCOUNT = "999999999999"
SOMEBODY_ELSE = "{somebody else}"
# For a resource's attribute: another existing resource of the same kind.
_OTHER = "<Another.Arn>"
_FUNCTION = "arn:aws:lambda:us-east-1:{account}:function:any"
_WRITES = {"Write", "Tagging", "Permissions management"}
# The reference counts these as reading, and they cost money.
_SPENDS = {"bedrock:InvokeModel"}
# Items that a role may read and must not write.
_ITEMS = {
    "the route": f"{{owner}}/{ROUTE}",
    "a release": f"{{owner}}/{RELEASE}{{id}}",
    "the declaration": f"{{owner}}/{DECLARED}",
    "a wait": f"{{owner}}/{WAIT}{{id}}@{{n}}",
}


def neighbours(call: Call) -> Iterator[tuple[str, Call]]:
    """Yield the neighbours of a call, each with its difference."""
    yield from _resources(call)
    context = dict(call.context)
    for key, change in _keys(call, context):
        for what, value in change.items():
            changed = {**context, key: value} if value else {k: v for k, v in context.items() if k != key}
            yield what, replace(call, context=tuple(sorted(changed.items())))


def _resources(call: Call) -> Iterator[tuple[str, Call]]:
    resource = call.resource
    if ":{account}:" in resource:
        yield "another account", _on(call, resource.replace("{account}", OTHER_ACCOUNT))
        yield "another Region", _on(call, resource.replace(":us-east-1:", ":eu-west-1:"))
    if resource.startswith("<"):
        name, _, rest = resource.partition(">")
        shown = _OTHER.removesuffix(">") if name.endswith(".Arn") else "<Another"
        yield "another resource", _on(call, f"{shown}>{rest}")
    if found := re.fullmatch(r"(<\w+\.Arn>)/([^/]+)(/.*)", resource):
        bucket, _, rest = found.groups()
        yield "another folder", _on(call, f"{bucket}/another{rest}")
    if ":foundation-model/" in resource or ":inference-profile/" in resource:
        yield "another model", _on(call, re.sub(r"nova-\w+", "nova-premier", resource))
    if ":subnet/" in resource or ":security-group/" in resource:
        yield "another network", _on(call, re.sub(r"\{id\}$", "another", resource))
    if ":execution:" in resource or ":stateMachine:" in resource:
        yield "another machine", _on(call, re.sub(r"\{owner\}|<\w+\.Name>", "another", resource))


def _on(call: Call, resource: str) -> Call:
    return replace(call, resource=resource)


def _keys(call: Call, context: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Condition keys, each with other values: an empty one is a request without the key."""
    if "s3:prefix" in context:
        yield "s3:prefix", {"another folder": "another/", "the whole bucket": ""}
    if "iam:PassedToService" in context:
        services = ("lambda", "sagemaker", "states")
        yield "iam:PassedToService", {f"for {service}": f"{service}.amazonaws.com" for service in services}
    if via := context.get("kms:ViaService"):
        other = "ec2" if not via.startswith("ec2") else "s3"
        yield "kms:ViaService", {f"through {other}": f"{other}.us-east-1.amazonaws.com", "directly": ""}
    if machine := context.get("kms:EncryptionContext:aws:states:stateMachineArn"):
        other = re.sub(r"[^:]+$", "another", machine)
        yield "kms:EncryptionContext:aws:states:stateMachineArn", {"another machine": other, "directly": ""}
    if "kms:EncryptionContext:SourceArn" in context:
        yield "kms:EncryptionContext:SourceArn", {"directly": ""}
    if call.action.startswith("ec2:"):
        yield "lambda:SourceFunctionArn", {"by the function's code": _FUNCTION}
    if "bedrock:InferenceProfileArn" in context:
        yield "bedrock:InferenceProfileArn", {"not through the profile": ""}
    if LEADING_KEYS in context:
        yield LEADING_KEYS, {"another item": "another"}
    if level(call.action) not in _WRITES and call.action not in _SPENDS:
        return
    if LEADING_KEYS in context:
        yield LEADING_KEYS, _ITEMS
    if REQUEST_TAG in context:
        yield REQUEST_TAG, {"for another owner": SOMEBODY_ELSE}
    # A resource with an id may belong to another owner; one named in a template is ours.
    kind = kind_of(call.action, call.resource)
    named_by_us = call.resource.startswith("<") or ":execution:" in call.resource
    if not named_by_us and "aws:ResourceTag" in keys(call.action, kind):
        yield RESOURCE_TAG, {"somebody else's": SOMEBODY_ELSE}
        if RESOURCE_TAG in context:
            yield RESOURCE_TAG, {"nobody's": ""}
