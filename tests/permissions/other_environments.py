"""Another environment of the same account: no policy of ours reaches it, and it reaches nothing of ours.

Each statement is evaluated with the most favourable request: whatever the caller chooses is what the
statement's conditions ask for, also our owner's tag on what is created. The neighbour's resources have its
names and its tags. And a role of ours does not get the neighbour's tag, which the neighbour's buckets trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from distilled_router.bedrock.naming import OWNER_TAG
from operate import execution_policy
from stacks import keys as key_policy
from stacks.settings import STACKS, Settings
from tests.iam import iam_evaluator
from tests.permissions import reference
from tests.permissions.grants import Environment, Grant
from tests.stacks.assembly import Statement
from tests.stacks.environments import ENVIRONMENTS
from tests.stacks.test_ci_roles import PARAMETERS, role

REQUEST_TAG = f"aws:RequestTag/{OWNER_TAG}"
RESOURCE_TAG = f"aws:ResourceTag/{OWNER_TAG}"
_UUID = "5d3c9a10-9999-4888-8777-666655554444"
_ID = "abcdefabcdef"
EXECUTION, CI, KEY = "execution policy", "CI: {}", "key policy"


@dataclass(frozen=True)
class Policy:
    """A policy that the project hands out. `is_ours` says that we are the caller, not the target."""

    name: str
    statements: tuple[Statement, ...]
    is_ours: bool = True


@dataclass(frozen=True)
class Thing:
    """A neighbour's resource; `kind` is the reference's resource type."""

    kind: str
    arn: str

    @property
    def service(self) -> str:
        """Return the service in its ARN."""
        return self.arn.split(":")[2]


def neighbours(settings: Settings) -> list[str]:
    """Return owners of other environments with the same name, also such that begin like ours."""
    ours = settings.environment
    return [f"{settings.name}-{other}" for other in (f"{ours}2", f"{ours}eu", "qa", ours[:-1])]


@cache
def things(owner: str, account: str, region: str) -> tuple[Thing, ...]:
    """Return the resources of a neighbour: one of each kind, or one in each stack."""
    return (*_named(owner, account, region), *_tagged(account, region), *_of_its_ci(owner, account, region))


def _named(owner: str, account: str, region: str) -> Iterator[Thing]:
    place = f"{region}:{account}"
    for stack in STACKS:
        name = f"{owner}-{stack}-Thing1A2B3C4D-1XYZ"
        yield Thing("bucket", f"arn:aws:s3:::{name.lower()}")
        yield Thing("object", f"arn:aws:s3:::{name.lower()}/releases/{owner}/report.json")
        yield Thing("table", f"arn:aws:dynamodb:{place}:table/{name}")
        yield Thing("function", f"arn:aws:lambda:{place}:function:{name}")
        yield Thing("function alias", f"arn:aws:lambda:{place}:function:{name}:live")
        yield Thing("layer", f"arn:aws:lambda:{place}:layer:{owner}-{stack}-dependencies")
        yield Thing("layerVersion", f"arn:aws:lambda:{place}:layer:{owner}-{stack}-dependencies:1")
        yield Thing("role", f"arn:aws:iam::{account}:role/{name}")
        yield Thing("topic", f"arn:aws:sns:{place}:{name}")
        yield Thing("queue", f"arn:aws:sqs:{place}:{name}")
        yield Thing("rule-on-default-event-bus", f"arn:aws:events:{place}:rule/{name}")
        for group in (name, f"/aws/vendedlogs/states/{name}", f"/aws/vendedlogs/apigateway/{name}"):
            yield Thing("log-group", f"arn:aws:logs:{place}:log-group:{group}")
            yield Thing("log-stream", f"arn:aws:logs:{place}:log-group:{group}:log-stream:one")
        yield Thing("stack", f"arn:aws:cloudformation:{place}:stack/{owner}-{stack}/{_UUID}")
    for machine in (f"{owner}-release", f"{owner}-labelling", f"{owner}-release-Waiter1A2B3C4D"):
        yield Thing("statemachine", f"arn:aws:states:{place}:stateMachine:{machine}")
        yield Thing("execution", f"arn:aws:states:{place}:execution:{machine}:{_ID}-1")
    yield Thing("log-group", f"arn:aws:logs:{place}:log-group:/aws/vendedlogs/states/{owner}-release")
    yield Thing("alarm", f"arn:aws:cloudwatch:{place}:alarm:{owner}-Fallback")
    yield Thing("dashboard", f"arn:aws:cloudwatch::{account}:dashboard/{owner}")
    yield Thing("budget", f"arn:aws:budgets::{account}:budget/{owner}")


def _tagged(account: str, region: str) -> Iterator[Thing]:
    place = f"{region}:{account}"
    yield Thing("key", f"arn:aws:kms:{place}:key/{_UUID}")
    student = "amazon.nova-micro-v1:0:128k"
    for kind in ("model-customization-job", "custom-model"):
        yield Thing(kind, f"arn:aws:bedrock:{place}:{kind}/{student}/{_ID}")
    for kind in ("custom-model-deployment", "provisioned-model", "model-invocation-job", "evaluation-job"):
        yield Thing(kind, f"arn:aws:bedrock:{place}:{kind}/{_ID}")
    api = f"arn:aws:apigateway:{region}::/apis/{_ID}"
    yield Thing("Api", api)
    for kind in ("Stage", "Route", "Integration"):
        yield Thing(kind, f"{api}/{kind.lower()}s/{_ID}")
        yield Thing(f"{kind}s", f"{api}/{kind.lower()}s")
    for kind in ("security-group", "vpc-endpoint"):
        yield Thing(kind, f"arn:aws:ec2:{place}:{kind}/{kind}-{_ID}")


def _of_its_ci(owner: str, account: str, region: str) -> Iterator[Thing]:
    for name in ("deploy", "diff"):
        yield Thing("role", f"arn:aws:iam::{account}:role/ci-{owner}-{name}")
    for name in ("cfn-exec", "deploy", "file-publishing", "lookup"):
        # sts:AssumeRole is an action of another service than the role's.
        yield Thing("role", f"arn:aws:iam::{account}:role/cdk-other-{name}-role-{account}-{region}")
    yield Thing("bucket", f"arn:aws:s3:::cdk-other-assets-{account}-{region}")
    yield Thing("object", f"arn:aws:s3:::cdk-other-assets-{account}-{region}/0.zip")
    yield Thing("parameter", f"arn:aws:ssm:{region}:{account}:parameter/cdk-bootstrap/other/version")


def policies(environment: Environment) -> Iterator[Policy]:
    """Yield the policies of an environment's stacks, and the policies for its deployment."""
    assembly = environment.assembly
    for name, found in environment.roles.items():
        yield Policy(name, tuple(assembly.role_statements(found)))
        trust = assembly.statements(found.properties["AssumeRolePolicyDocument"])
        yield from _of_resource(f"trust of {name}", trust)
    for found in assembly.resources(
        "AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"
    ):
        yield from _of_resource(found.name, assembly.statements(found.properties["PolicyDocument"]))
    settings = assembly.settings
    creates = key_policy.deployment(settings.account, settings.region, settings.bootstrap_qualifier)
    key = {"Statement": [creates, *key_policy.policy(settings)["Statement"]]}
    yield from _of_resource(KEY, assembly.statements(key))
    for permission in assembly.resources("AWS::Lambda::Permission"):
        yield from _of_resource("invocation", [_permission(environment, permission.properties)])
    if environment.name in (*ENVIRONMENTS, "hardened"):
        written = execution_policy.policies(assembly.settings, assembly.folder)
        documents = [one["Properties"]["PolicyDocument"] for one in written["Resources"].values()]
        yield Policy(EXECUTION, tuple(s for document in documents for s in assembly.statements(document)))
    if assembly.settings.owner == f"{PARAMETERS['Name']}-{PARAMETERS['Environment']}":
        for name in ("DeployRole", "DiffRole"):
            documents = [one["PolicyDocument"] for one in role(name)["Policies"]]
            yield Policy(
                CI.format(name), tuple(s for document in documents for s in assembly.statements(document))
            )


def _of_resource(name: str, statements: Iterable[Statement]) -> Iterator[Policy]:
    """Yield the statements of a resource's policy one by one, named after whom they allow something."""
    for statement in statements:
        (principals,) = statement.principal.values()
        yield Policy(f"{name}, for {principals}", (statement,), is_ours=False)


def _permission(environment: Environment, properties: Mapping[str, Any]) -> Statement:
    """Return a function's permission as the statement that Lambda writes into its policy."""
    shown = environment.assembly.plain(properties)
    conditions = {"ArnLike": {"aws:SourceArn": shown["SourceArn"]}} if "SourceArn" in shown else {}
    return Statement(
        "Allow", frozenset({shown["Action"]}), frozenset("*"), conditions, {"Service": shown["Principal"]}
    )


def reached(policy: Policy, settings: Settings) -> Iterator[Grant]:
    """Yield what a policy allows across environments, as a grant on the neighbour's resource."""
    parsed = tuple(_parsed(statement, is_ours=policy.is_ours) for statement in policy.statements)
    if not policy.is_ours:
        yield from _by_neighbours(policy, parsed, settings)
        return
    for owner in neighbours(settings):
        for thing in _things_in(owner, settings):
            for statement in policy.statements:
                for action in _on(statement, thing):
                    context = _context(statement, action, thing, owner)
                    if _allowed(parsed, action, thing.arn, context, settings):
                        yield Grant(policy.name, action, thing.arn)
    yield from (Grant(policy.name, action, "*") for action in _without_resources(policy))
    yield from _as_a_neighbour(policy, parsed, settings)


def _as_a_neighbour(policy: Policy, parsed: Iterable[Any], settings: Settings) -> Iterator[Grant]:
    """Yield each way in which a policy lets a role of ours get a neighbour's tag."""
    role = f"arn:aws:iam::{settings.account}:role/{settings.owner}-release-Role1A2B3C4D-1XYZ"
    for owner in neighbours(settings):
        for statement in policy.statements:
            for action in statement.actions & {"iam:CreateRole", "iam:TagRole"}:
                context = {**dict(_asked_for(statement.conditions)), REQUEST_TAG: owner}
                if _allowed(parsed, action, role, context, settings):
                    yield Grant(policy.name, action, f"{role} with the tag of {owner}")


def _by_neighbours(policy: Policy, parsed: Iterable[Any], settings: Settings) -> Iterator[Grant]:
    """Yield what a resource's policy allows a neighbour; on `*` if it does not ask who the source is."""
    (statement,) = policy.statements
    asked = dict(_asked_for(statement.conditions))
    sources = [key for key in _SOURCES if key in asked]
    found = [thing.arn for owner in neighbours(settings) for thing in _things_in(owner, settings)]
    for action in statement.actions if statement.effect == "Allow" else ():
        for arn in found if sources else ["*"]:
            if _allowed(parsed, action, arn, {**asked, **dict.fromkeys(sources, arn)}, settings):
                yield Grant(policy.name, action, arn)


def _things_in(owner: str, settings: Settings) -> tuple[Thing, ...]:
    return things(owner, settings.account, settings.region)


def _on(statement: Statement, thing: Thing) -> Iterator[str]:
    """Yield the actions of a statement that may be about a neighbour's resource."""
    if statement.effect != "Allow":
        return
    if any(iam_evaluator.fnmatch_iam_cs(thing.arn, pattern) for pattern in statement.resources):
        for action in statement.actions:
            kinds = reference.kinds(action)
            if thing.kind in kinds or (not reference.level(action) and thing.service == action.split(":")[0]):
                yield action


def _without_resources(policy: Policy) -> Iterator[str]:
    """Yield the allowed actions that take no resource, so they can't be limited to one."""
    for statement in policy.statements:
        if statement.effect == "Allow":
            yield from (a for a in statement.actions if reference.level(a) and not reference.kinds(a))


def _context(statement: Statement, action: str, thing: Thing, owner: str) -> Mapping[str, object]:
    """Return condition keys: as the statement asks, but for what the neighbour's resource decides."""
    found = dict(_asked_for(statement.conditions))
    found.pop(RESOURCE_TAG, None)
    if not reference.level(action) or "aws:ResourceTag" in reference.keys(action, thing.kind):
        found[RESOURCE_TAG] = owner
    return found


# Condition keys with the ARN of whatever asks a service to act.
_SOURCES = ("aws:SourceArn", "kms:EncryptionContext:aws:logs:arn")


def _asked_for(conditions: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield keys with values that fulfil conditions."""
    for operator, values in conditions.items():
        name = operator.rpartition(":")[2].removesuffix("IfExists")
        for key, value in values.items():
            first = value[0] if isinstance(value, list) else value
            if name == "Null":
                if str(first).lower() == "false":
                    yield key, "any"
            else:
                yield key, "another" if "Not" in name else first


def _allowed(
    parsed: Iterable[Any], action: str, resource: str, context: Mapping[str, object], settings: Settings
) -> bool:
    """Return IAM's decision."""
    asked = iam_evaluator.EvalContext(
        principal_arn=f"arn:aws:sts::{settings.account}:assumed-role/role/session",
        principal_type="AssumedRole",
        principal_account=settings.account,
        action=action,
        resource_arn=resource,
        region=settings.region,
        service_context={key.lower(): value for key, value in context.items()},
    )
    return bool(iam_evaluator.evaluate(asked, [list(parsed)]).decision == "Allow")


def _parsed(statement: Statement, *, is_ours: bool) -> Any:
    """Return a statement for the evaluation; of a resource's policy, only its conditions decide."""
    (found,) = iam_evaluator.parse_policy_document(
        {
            "Statement": {
                "Effect": statement.effect,
                "Action": sorted(statement.actions),
                "Resource": sorted(statement.resources) if is_ours else "*",
                "Condition": statement.conditions,
            }
        }
    )
    return found
