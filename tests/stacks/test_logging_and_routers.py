"""Two things of Bedrock that this package leaves alone: the account's invocation logging, and prompt routers.

Cases T30 to T34 and B36 describe a resource for the logging configuration, T40 to T43 one for prompt routers.
Neither fits. The configuration is one for an account and Region: whoever puts it overwrites every other
team's, as the sample notebooks do, and whoever deletes it ends their audit. A prompt router chooses between
foundation models of one family (Bedrock user guide, intelligent prompt routing) and takes no custom model, so
it could never send a request to a release. What is left of each case is that nothing here can do it.

Each check is also made on a small assembly that breaks it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from pydantic import ValidationError

from stacks.settings import PROJECT, Settings
from tests.stacks.assembly import STACKS, Assembly, Resource, walk
from tests.stacks.environments import settings_of

LOGGING, ROUTERS = "ModelInvocationLogging", "PromptRouter"
ROUTER = "arn:aws:bedrock:us-east-1:{account}:{kind}/0123456789ab"
Bad = Callable[..., Assembly]


def operations(word: str) -> list[str]:
    """Bedrock's operations with this word in their names, as IAM actions: botocore knows them all."""
    model = botocore.session.get_session().get_service_model("bedrock")
    found = [f"bedrock:{name}" for name in model.operation_names if word in name]
    assert found, word
    return found


def delivery_flags() -> set[str]:
    """The configuration's switches for each kind of data."""
    model = botocore.session.get_session().get_service_model("bedrock")
    members = model.shape_for("LoggingConfig").members  # type: ignore[attr-defined]  # a structure has members
    return {name.lower() for name in members if name.endswith("DataDeliveryEnabled")}


def may(assembly: Assembly, action: str, resource: str | None = None) -> set[str]:
    """Logical ids of what holds a policy that allows the action, on a resource where one is named."""
    return {
        holder.logical_id
        for holder, statement in statements(assembly)
        if statement["Effect"] == "Allow"
        and _covers(statement, "Action", action)
        and (resource is None or _covers(statement, "Resource", resource))
    }


def statements(assembly: Assembly) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    """Every statement of every policy, whatever resource holds it, with the holder. An endpoint's own policy
    allows nothing by itself: it limits what the others allow."""
    for holder in assembly.resources():
        if holder.type == "AWS::EC2::VPCEndpoint":
            continue
        for value in walk(holder.properties):
            if isinstance(value, dict) and isinstance(value.get("Statement"), list):
                for raw in value["Statement"]:
                    yield holder, assembly.plain(raw)


def _covers(statement: Mapping[str, Any], element: str, wanted: str) -> bool:
    """Whether Action or Resource names it, or NotAction or NotResource doesn't; as IAM compares."""
    if f"Not{element}" in statement:
        return not _matches(statement[f"Not{element}"], wanted)
    return _matches(statement.get(element, []), wanted)


def _matches(patterns: str | list[str], wanted: str) -> bool:
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        parts = {"*": ".*", "?": "."}
        regular = "".join(parts.get(character, re.escape(character)) for character in pattern)
        if re.fullmatch(regular, wanted, re.IGNORECASE):
            return True
    return False


def mentions(assembly: Assembly, *words: str) -> set[str]:
    """Logical ids of resources in whose type, keys or texts one of these words stands."""
    return {
        resource.logical_id
        for resource in assembly.resources()
        if any(word.lower() in json.dumps(resource.raw).lower() for word in words)
    }


def bedrock_writes(assembly: Assembly) -> set[str]:
    """Logical ids of what lets Bedrock itself deliver: a bucket's policy, or a role of its for log groups."""
    return {
        holder.logical_id
        for holder, statement in statements(assembly)
        if "bedrock.amazonaws.com" in json.dumps(statement.get("Principal", {}))
        and (holder.type != "AWS::IAM::Role" or _writes_logs(assembly, holder))
    }


def _writes_logs(assembly: Assembly, role: Resource) -> bool:
    granted = (statement.actions for statement in assembly.role_statements(role))
    return any(_matches(list(actions), "logs:PutLogEvents") for actions in granted)


def sources(word: str, folder: Path = PROJECT / "lambda") -> set[str]:
    """Files in which a name or a text without spaces holds the word, however it is spelt."""
    return {
        path.name
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if word.lower() in _name(node).replace("_", "").lower()
    }


def _name(node: ast.AST) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Constant(value=str(text)) if " " not in text:
            return text
        case _:
            return ""


def refusal(changes: Mapping[str, Any]) -> str:
    """What the settings say to these changes of an environment; nothing where they take them."""
    settings = settings_of("local").model_dump()
    merged = {
        key: {**settings[key], **value} if isinstance(settings.get(key), dict) else value
        for key, value in changes.items()
    }
    try:
        Settings.model_validate({**settings, **merged})
    except ValidationError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def bad(assemblies: Mapping[str, Assembly], tmp_path_factory: pytest.TempPathFactory) -> Bad:
    """Makes an assembly that holds nothing but the given resources."""

    def made(**resources: Mapping[str, Any]) -> Assembly:
        assembly = replace(assemblies["local"], folder=tmp_path_factory.mktemp("bad"))
        for stack in STACKS:
            template = {"Resources": resources if stack == STACKS[0] else {}}
            assembly.path(stack).write_text(json.dumps(template), encoding="utf-8")
        return assembly

    return made


def policy(action: str, resource: Any = "*", key: str = "Action") -> dict[str, Any]:
    """A role's policy of one statement."""
    statement = {"Effect": "Allow", key: action, "Resource": resource}
    return {
        "Type": "AWS::IAM::Policy",
        "Properties": {"PolicyDocument": {"Statement": [statement]}, "Roles": [{"Ref": "Role"}]},
    }


def trusting_bedrock() -> dict[str, Any]:
    """A role that Bedrock assumes."""
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "bedrock.amazonaws.com"}}
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Statement": [trust]}}}


def test_t30_nothing_may_put_the_accounts_logging_configuration(assembly: Assembly) -> None:
    """The case makes it, with a bucket and a log group that Bedrock may write to. We make neither."""
    assert not may(assembly, "bedrock:PutModelInvocationLoggingConfiguration")
    assert not bedrock_writes(assembly)


@pytest.mark.parametrize(
    "given",
    [
        policy("bedrock:PutModelInvocationLoggingConfiguration"),
        policy("bedrock:PutModel*"),
        policy("Bedrock:put?odelInvocationLoggingConfiguration"),
        policy("*"),
        policy("s3:*", key="NotAction"),
    ],
)
def test_t30_a_policy_that_lets_it_be_put_is_found(bad: Bad, given: Mapping[str, Any]) -> None:
    assert may(bad(Policy=given), "bedrock:PutModelInvocationLoggingConfiguration") == {"Policy"}


def test_t30_a_bucket_and_a_role_for_its_deliveries_are_found(bad: Bad) -> None:
    delivery = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::logs/*"}
    bucket = {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {
            "Bucket": "logs",
            "PolicyDocument": {
                "Statement": [{**delivery, "Principal": {"Service": ["bedrock.amazonaws.com"]}}]
            },
        },
    }
    role, writes = trusting_bedrock(), policy("logs:*")

    assert bedrock_writes(bad(Bucket=bucket, Role=role, Policy=writes)) == {"Bucket", "Role"}
    assert bedrock_writes(bad(Role=role, Policy=policy("s3:GetObject"))) == set()


def test_t31_no_template_holds_a_switch_of_it(assembly: Assembly, bad: Bad) -> None:
    """The case turns all data deliveries off in place. What kinds of data the account's owner has logged is
    not ours to know."""
    flags = delivery_flags()
    assert len(flags) >= 4
    assert not mentions(assembly, *flags)

    call = {
        "Type": "Custom::AWS",
        "Properties": {"Create": '{"loggingConfig":{"textDataDeliveryEnabled":1}}'},
    }
    assert mentions(bad(Call=call, Role=trusting_bedrock()), *flags) == {"Call"}


def test_t32_no_function_puts_it_back(tmp_path: Path) -> None:
    """The case puts back what somebody deleted by hand. That somebody was the owner."""
    assert not sources(LOGGING)

    (tmp_path / "attribute.py").write_text("def f(b):\n    b.put_model_invocation_logging_configuration()\n")
    (tmp_path / "text.py").write_text("getattr(b, 'delete_model_invocation_logging_configuration')()\n")
    (tmp_path / "prose.py").write_text('"""Never ModelInvocationLogging, it is not ours."""\n')
    assert sources(LOGGING, tmp_path) == {"attribute.py", "text.py"}


def test_t33_nothing_may_delete_a_configuration_that_others_made(assembly: Assembly, bad: Bad) -> None:
    """The case deletes its own with the stack. An API with one configuration can't tell whose it is."""
    assert not may(assembly, "bedrock:DeleteModelInvocationLoggingConfiguration")

    given = policy("bedrock:Delete*")
    assert may(bad(Policy=given), "bedrock:DeleteModelInvocationLoggingConfiguration") == {"Policy"}


def test_t34_no_setting_asks_for_it() -> None:
    """The case upgrades a template that holds it. There is none to upgrade: no version of the settings had
    the section, and an unknown one is refused rather than ignored."""
    for section in ("invocation_logging", "model_invocation_logging", "logging"):
        assert "Extra inputs are not permitted" in refusal(
            {section: {"log_group": "/bedrock", "adopt": True}}
        )

    assert refusal({"tags": {"team": "search"}}) == ""


def test_b36_no_resource_is_one_of_it_whoever_made_it_first(assembly: Assembly, bad: Bad) -> None:
    """The case refuses to overwrite a configuration with other targets, unless told to adopt it. Here no
    resource, no call of the CDK's own custom resource and no state of a machine has to do with it."""
    assert not mentions(assembly, LOGGING)
    for operation in operations(LOGGING):
        assert not may(assembly, operation), operation

    ours = {"Type": "Custom::BedrockModelInvocationLogging", "Properties": {"Adopt": "true"}}
    call = {"Type": "Custom::AWS", "Properties": {"Create": '{"action":"putModelInvocationLoggingConfig"}'}}
    state = {"Type": "AWS::StepFunctions::StateMachine"} | {
        "Properties": {"DefinitionString": "arn:aws:states:::aws-sdk:bedrock:putModelInvocationLoggingX"}
    }
    found = mentions(bad(Ours=ours, Call=call, State=state, Other=policy("s3:GetObject")), LOGGING)
    assert found == {"Ours", "Call", "State"}


def test_t40_no_template_makes_a_prompt_router(assembly: Assembly, bad: Bad) -> None:
    """The case makes one of two models, with a fallback. It would be refused with a custom model."""
    assert not mentions(assembly, ROUTERS)

    router = {"Type": "AWS::Bedrock::IntelligentPromptRouter", "Properties": {"PromptRouterName": "r"}}
    assert mentions(bad(Router=router, Other=policy("s3:GetObject")), ROUTERS) == {"Router"}


@pytest.mark.parametrize("kind", ["prompt-router", "default-prompt-router"])
def test_t40_a_prompt_router_is_no_model_for_our_router(kind: str) -> None:
    arn = ROUTER.format(account="000000000000", kind=kind)
    assert "router.base_model" in refusal({"router": {"base_model": arn}})
    assert "distillation.teacher" in refusal({"distillation": {"teacher": arn}})

    assert refusal({"router": {"base_model": "amazon.nova-lite-v1:0"}}) == ""


def test_t41_nothing_may_make_read_or_delete_a_prompt_router(assembly: Assembly, bad: Bad) -> None:
    """The case finds that somebody deleted its router. No role of ours could look."""
    actions = operations(ROUTERS)
    assert len(actions) >= 4
    for action in actions:
        assert not may(assembly, action), action

    given = bad(One=policy("bedrock:Get*"), All=policy("bedrock:*PromptRouter*"), None_=policy("s3:*"))
    assert may(given, "bedrock:GetPromptRouter") == {"One", "All"}
    assert may(given, "bedrock:DeletePromptRouter") == {"All"}


def test_t42_no_function_and_no_setting_describes_a_prompt_router(tmp_path: Path) -> None:
    """The case gives it a description."""
    assert not sources(ROUTERS)
    assert "Extra inputs are not permitted" in refusal({"prompt_router": {"description": "ours"}})
    assert "Extra inputs are not permitted" in refusal({"router": {"prompt_router": "ours"}})

    (tmp_path / "attribute.py").write_text("def f(b):\n    b.create_prompt_router(description='ours')\n")
    assert sources(ROUTERS, tmp_path) == {"attribute.py"}


@pytest.mark.parametrize("kind", ["prompt-router", "default-prompt-router"])
def test_t43_nothing_may_tag_or_ask_a_prompt_router(assembly: Assembly, bad: Bad, kind: str) -> None:
    """The case tags it. Roles may tag and ask what they name, and no name of ours covers a router."""
    arn = ROUTER.format(account=assembly.settings.account, kind=kind)
    for action in ("TagResource", "UntagResource", "ListTagsForResource", "InvokeModel"):
        assert not may(assembly, f"bedrock:{action}", arn), action

    ours = ["arn:aws:bedrock:", {"Ref": "AWS::Region"}, ":", {"Ref": "AWS::AccountId"}]
    wide, narrow = ({"Fn::Join": ["", [*ours, end]]} for end in (":*/*", ":custom-model/*"))
    given = bad(Wide=policy("bedrock:TagResource", wide), Narrow=policy("bedrock:TagResource", narrow))
    own = ROUTER.format(account=given.settings.account, kind=kind)
    assert may(given, "bedrock:TagResource", own) == {"Wide"}
