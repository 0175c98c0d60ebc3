"""ProvisionedThroughput in another team's app: arguments, resources and permissions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template
from cdk_nag import AwsSolutionsChecks
from constructs import Construct

from cdk_distilled_router import (
    ExistingThroughput,
    ProvisionedThroughput,
    Release,
    ReleaseProps,
    ReleaseStores,
)
from cdk_distilled_router.common.grants import Permission
from cdk_distilled_router.props import RETAIN
from stacks.release import cost
from stacks.settings import Settings
from tests.stacks import declaring
from tests.stacks.assembly import Assembly, unhashed
from tests.stacks.environments import settings_of
from tests.stacks.test_custom_resources import subscripts

STUDENT = "amazon.nova-micro-v1:0:128k"
MODEL = f"arn:aws:bedrock:us-east-1:111122223333:custom-model/{STUDENT}/a1b2c3d4e5f6"
THROUGHPUT = "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/a1b2c3d4e5f6"
ROLES = {"ThroughputRole", "ThroughputStepRole"}
PRICED = {"commitment": "OneMonth", "acknowledge_commitment": True, "hourly_price_usd": 50.0}


@pytest.fixture
def stack() -> cdk.Stack:
    return cdk.Stack(cdk.App(analytics_reporting=False), "search")


@dataclass(frozen=True)
class Source:
    """A source of a release's model."""

    digest: str = "a" * 12
    student: str = STUDENT
    source: str = MODEL
    role: iam.IRole | None = None
    labelling_machine_arn: str = ""
    training_key: str = ""
    has_model_key: bool = False

    def reading_training(self, scope: Construct) -> list[Permission]:
        del scope
        return []


def bought(stack: cdk.Stack, **arguments: Any) -> ProvisionedThroughput:
    """Return throughput that the deployment buys; None removes an argument."""
    given = {
        "owner": "search",
        "name": "search-router",
        "model_arn": MODEL,
        "model_units": 1,
        **arguments,
    }
    kept = {name: value for name, value in given.items() if value is not None}
    return declaring.throughput(stack, "Throughput", **kept)


def table(stack: cdk.Stack) -> dynamodb.Table:
    key = dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING)
    return dynamodb.Table(stack, "Table", partition_key=key)


def properties(stack: cdk.Stack) -> Mapping[str, Any]:
    """Return the properties of the custom resource."""
    found = Template.from_stack(stack).find_resources("Custom::BedrockProvisionedThroughput")
    (resource,) = found.values()
    return {name: value for name, value in resource["Properties"].items() if name != "ServiceToken"}


def allowed(stack: cdk.Stack) -> Iterator[tuple[str, str]]:
    """Yield the Bedrock actions of the handler's role, each with a resource."""
    for policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").values():
        if {unhashed(role["Ref"]) for role in policy["Properties"]["Roles"]}.isdisjoint(ROLES):
            continue
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            for action in several(statement["Action"]):
                for resource in several(statement["Resource"]):
                    if action.startswith("bedrock:"):
                        yield action.removeprefix("bedrock:"), str(resource)


def several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_owner_name_model_and_units_are_enough(stack: cdk.Stack) -> None:
    """Case T20."""
    throughput = bought(stack)

    assert throughput.name == "search-router-1mu"
    assert throughput.stage is None
    assert cdk.Token.is_unresolved(throughput.provisioned_model_arn)
    assert properties(stack) == {
        "ProvisionedModelName": "search-router-1mu",
        "Owner": "search",
        "ModelArn": MODEL,
        "ModelUnits": 1,
        "Retain": False,
        "Tags": {},
    }
    functions = Template.from_stack(stack).find_resources("AWS::Lambda::Function").values()
    handlers = {function["Properties"]["Handler"] for function in functions}
    assert {name for name in handlers if not name.startswith("framework.")} == {
        "provisioned_throughput.handler.on_event",
        "provisioned_throughput.handler.is_complete",
    }


def test_all_that_can_be_set_reaches_the_resource(stack: cdk.Stack) -> None:
    """Case T20."""
    kept = RETAIN.model_copy(update={"throughput": "retain"})
    bought(stack, **PRICED, model_units=2, retention=kept, tags={"team": "search"})

    assert properties(stack) == {
        "ProvisionedModelName": "search-router-2mu-1m",
        "Owner": "search",
        "ModelArn": MODEL,
        "ModelUnits": 2,
        "CommitmentDuration": "OneMonth",
        "HourlyPriceUsd": 50,
        "Retain": True,
        "Tags": {"team": "search"},
    }


def test_resource_has_the_properties_that_its_handler_reads(stack: cdk.Stack) -> None:
    bought(stack, **PRICED)
    required, optional = subscripts("provisioned_throughput", "properties")
    assert required <= set(properties(stack)) == required | optional


def test_its_role_may_do_what_one_models_throughput_needs_and_no_more(stack: cdk.Stack) -> None:
    bought(stack)
    found = set(allowed(stack))
    throughputs = {action for action, resource in found if "provisioned-model/*" in resource}
    models = {action for action, resource in found if f"custom-model/{STUDENT}/*" in resource}
    bases = {action for action, resource in found if f"foundation-model/{STUDENT}" in resource}
    update = "UpdateProvisionedModelThroughput"
    assert throughputs == {
        "GetProvisionedModelThroughput",
        "DeleteProvisionedModelThroughput",
        "ListTagsForResource",
        "TagResource",
        "UntagResource",
        update,
    }
    assert models == {"GetCustomModel", "CreateProvisionedModelThroughput", update}
    assert bases == {"GetFoundationModel"}
    listed = {action for action, resource in found if resource == "*"}
    assert listed == {"ListProvisionedModelThroughputs"}
    assert {action for action, _ in found} == throughputs | models | bases | listed


def test_it_changes_and_deletes_only_what_carries_the_owners_tag(stack: cdk.Stack) -> None:
    bought(stack)
    owner = {"aws:ResourceTag/distilled-router:owner": "search"}
    (policy,) = [
        policy
        for name, policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").items()
        if name.startswith("ThroughputRole")
    ]
    conditions = {
        action: statement.get("Condition", {})
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        if "provisioned-model/*" in str(statement["Resource"])
        for action in several(statement["Action"])
    }
    for action in ("UpdateProvisionedModelThroughput", "DeleteProvisionedModelThroughput", "UntagResource"):
        assert conditions[f"bedrock:{action}"] == {"StringEquals": owner}


def test_a_release_buys_it_without_a_custom_resource_and_claims_it(stack: cdk.Stack) -> None:
    releases = table(stack)
    throughput = bought(stack, table=releases, model_arn=None, student=STUDENT, name="search")
    assert (throughput.resource, throughput.provisioned_model_arn, throughput.stage) == (None, None, None)
    bucket, stores = s3.Bucket(stack, "Bucket"), ReleaseStores(table=releases)
    release = Release(
        stack,
        "Release",
        owner="search",
        job=Source(),
        bucket=bucket,
        holdout_key="datasets/d/holdout.jsonl",
        props=ReleaseProps(throughput=throughput),
        stores=stores,
    )

    template = Template.from_stack(stack)
    template.resource_count_is("Custom::BedrockProvisionedThroughput", 0)
    (variables,) = [
        function["Properties"]["Environment"]["Variables"]
        for function in template.find_resources("AWS::Lambda::Function").values()
        if function["Properties"]["Handler"] == "provisioned_throughput.handler.serve_from_throughput"
    ]
    (logical_id,) = template.find_resources("Custom::BedrockRelease")
    assert (variables["STACK_ID"], variables["LOGICAL_ID"]) == ({"Ref": "AWS::StackId"}, logical_id)
    assert stack.resolve(release.resource.ref) == {"Ref": logical_id}


def test_a_releases_throughput_may_read_models_of_any_student(stack: cdk.Stack) -> None:
    """The student in the settings may change while a model of the one before is served."""
    releases = table(stack)
    bought(stack, table=releases, model_arn=None, student=STUDENT, name="search")
    of_any = {action for action, resource in allowed(stack) if ":custom-model/*" in resource}
    assert of_any == {"GetCustomModel"}


@pytest.mark.parametrize("commitment", [True, False])
def test_price_of_a_commitment_reaches_the_release(stack: cdk.Stack, commitment: bool) -> None:
    """Its resource says what a commitment still costs. Without one, a new price must restart nothing."""
    releases = table(stack)
    priced = PRICED if commitment else {"hourly_price_usd": 50.0}
    throughput = bought(stack, **priced, table=releases, model_arn=None, student=STUDENT, name="search")
    assert throughput.hourly_price_usd == (50.0 if commitment else None)


def test_cdk_nag_finds_nothing() -> None:
    app = cdk.App(analytics_reporting=False)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    stack = cdk.Stack(app, "search")
    bought(stack, model_key=kms.Key(stack, "Key", enable_key_rotation=True))

    assert properties(stack)["ModelArn"] == MODEL


def test_it_is_waited_for_as_long_as_cloudformation_waits(stack: cdk.Stack) -> None:
    """Throughput comes into service after 20 to 30 minutes. Cases B21, C8."""
    bought(stack)
    (machine,) = Template.from_stack(stack).find_resources("AWS::StepFunctions::StateMachine").values()
    definition = "".join(
        part for part in machine["Properties"]["DefinitionString"]["Fn::Join"][1] if isinstance(part, str)
    )
    assert '"IntervalSeconds":30' in definition
    assert '"MaxAttempts":110' in definition


def test_a_models_arn_that_is_known_when_deployed_needs_the_student(stack: cdk.Stack) -> None:
    arn = cdk.Fn.import_value("model")
    with pytest.raises(ValueError, match="give student, the base model"):
        bought(stack, model_arn=arn)
    other = cdk.Stack(cdk.App(analytics_reporting=False), "other")
    bought(other, model_arn=arn, student=STUDENT)
    assert properties(other)["ModelArn"] == {"Fn::ImportValue": "model"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"model_arn": None}, r"give either model_arn, .*or table"),
        ({"model_units": 0}, r"model_units = 0; allowed is 1 or more"),
        ({"commitment": "OneMonth"}, r"Set acknowledge_commitment"),
        ({**PRICED, "hourly_price_usd": None}, r"OneMonth needs hourly_price_usd"),
        ({"hourly_price_usd": 0.0}, r"hourly_price_usd = 0; allowed is more than 0"),
        ({**PRICED, "commitment": "OneYear"}, r"Input should be 'none', 'OneMonth' or 'SixMonths'"),
        ({"name": "search.router"}, r"search\.router-1mu: the name has 17 characters"),
        ({"name": "n" * 60}, r"the name has 64 characters; allowed are 63"),
        (
            {"model_arn": f"arn:aws:bedrock:us-east-1::foundation-model/{STUDENT}"},
            r"only a custom model's",
        ),
    ],
)
def test_invalid_or_unacknowledged_arguments_are_refused(
    stack: cdk.Stack, arguments: dict[str, Any], problem: str
) -> None:
    """Case B20."""
    with pytest.raises(ValueError, match=problem):
        bought(stack, **arguments)


def test_model_and_table_are_for_two_different_uses(stack: cdk.Stack) -> None:
    releases = table(stack)
    with pytest.raises(ValueError, match=r"give either model_arn, .*or table"):
        bought(stack, table=releases)
    other = cdk.Stack(cdk.App(), "other")
    with pytest.raises(ValueError, match=r"name must be the owner 'search', .*found 'search-router'"):
        bought(other, table=releases, model_arn=None, student=STUDENT)


def test_a_release_takes_no_throughput_that_the_deployment_buys(stack: cdk.Stack) -> None:
    job, bucket = Source(), s3.Bucket(stack, "Bucket")
    with pytest.raises(ValueError, match=r"the deployment buys throughput search-router-1mu; give it this"):
        Release(
            stack,
            "Release",
            owner="search",
            job=job,
            bucket=bucket,
            holdout_key="datasets/d/holdout.jsonl",
            props=ReleaseProps(throughput=bought(stack)),
        )


def test_throughput_of_others_is_used_by_its_arn_and_never_bought(stack: cdk.Stack) -> None:
    """Case T20."""
    found = ProvisionedThroughput.from_provisioned_model_arn(stack, "Throughput", THROUGHPUT)

    assert isinstance(found, ExistingThroughput)
    template = Template.from_stack(stack)
    template.resource_count_is("Custom::BedrockProvisionedThroughput", 0)
    template.resource_count_is("Custom::BedrockExistingThroughput", 1)
    with pytest.raises(ValueError, match="is not the ARN of a provisioned throughput"):
        ProvisionedThroughput.from_provisioned_model_arn(stack, "Model", MODEL)


def with_term(commitment: str) -> Settings:
    """Return the settings of the variant with throughput, with a commitment."""
    values = settings_of("provisioned").model_dump()
    values["endpoint"]["provisioned"] |= {
        "model_units": 2,
        "hourly_price_usd": 60.5,
        "commitment": commitment,
        "acknowledge_commitment": commitment != "none",
    }
    return Settings.model_validate(values)


@pytest.mark.parametrize(
    ("commitment", "least"),
    [("none", None), ("OneMonth", "88,330.00 USD"), ("SixMonths", "529,980.00 USD")],
)
def test_cost_is_reported_in_numbers(commitment: str, least: str | None) -> None:
    wanted = with_term(commitment).endpoint.provisioned
    assert wanted is not None
    text = cost(wanted)
    assert "2 model units at 60.5 USD an hour each cost 121.00 USD an hour" in text
    assert "88,330.00 USD a month of 730 hours" in text
    assert (f"of {commitment} costs at least {least}" in text) is (least is not None)


def test_cost_is_an_output_if_there_is_throughput(assembly: Assembly) -> None:
    outputs = assembly.templates["release"].get("Outputs", {})
    is_provisioned = assembly.settings.endpoint.kind == "provisioned"
    assert ("ThroughputCost" in outputs) is is_provisioned
    if is_provisioned:
        assert outputs["ThroughputCost"]["Value"].startswith(
            "2 model units at 100 USD an hour each cost 200.00"
        )
        assert "2 model units at 100 USD" in assembly.templates["release"]["Description"]


def test_name_of_throughput_is_one_for_step_release_and_sweeper(assembly: Assembly) -> None:
    """The step buys, the release uses and the sweeper keeps throughput of the same name."""
    provisioned = assembly.settings.endpoint.kind == "provisioned"
    name = assembly.identity.throughput_name
    assert name == (f"{assembly.settings.owner}-2mu" if provisioned else "")
    release = assembly.one("Custom::BedrockRelease").properties
    assert release["Endpoint"] == (name or "on_demand")
    assert release["RetainThroughput"] is (assembly.settings.retention.throughput == "retain")
    for function in ("ReleaseRetireOld", "ReleaseFail", "ReleaseSweep"):
        variables = assembly.one("AWS::Lambda::Function", function).properties["Environment"]["Variables"]
        assert (variables["THROUGHPUT_NAME"], variables["RETAIN_THROUGHPUT"]) == (name, "false")
    if provisioned:
        stage = assembly.one("AWS::Lambda::Function", "ThroughputServeFromThroughput")
        variables = stage.properties["Environment"]["Variables"]
        assert variables["THROUGHPUT_NAME"] == name
        assert variables["LOGICAL_ID"] == assembly.one("Custom::BedrockRelease").logical_id
