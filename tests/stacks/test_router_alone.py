"""Router in another team's app: what it takes from a Release, and from a reference to one."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template

from cdk_distilled_router import (
    ExistingModel,
    Release,
    ReleaseProps,
    ReleaseReference,
    ReleaseStores,
    Router,
)
from cdk_distilled_router.props import HeadProps, RouterProps
from tests.stacks.assembly import unhashed

STUDENT = "amazon.nova-micro-v1:0:128k"
MODEL = f"arn:aws:bedrock:us-east-1:111122223333:custom-model/{STUDENT}/a1b2c3d4e5f6"


@pytest.fixture
def stack() -> cdk.Stack:
    return cdk.Stack(cdk.App(analytics_reporting=False), "search")


def key(stack: cdk.Stack, name: str) -> kms.IKey:
    return kms.Key.from_key_arn(stack, name, f"arn:aws:kms:us-east-1:111122223333:key/{name.lower()}")


def release(stack: cdk.Stack, *, has_model_key: bool = False, **more: Any) -> Release:
    model = ExistingModel(stack, "Model", MODEL, has_model_key=has_model_key)
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "search-data")
    return Release(
        stack, "Release", owner="search", job=model, bucket=bucket, holdout_key="rows/holdout.jsonl", **more
    )


def resource(stack: cdk.Stack, kind: str, name: str) -> dict[str, Any]:
    found = Template.from_stack(stack).find_resources(kind)
    return next(dict(each["Properties"]) for key, each in found.items() if unhashed(key) == name)


def allowed(stack: cdk.Stack) -> dict[str, Any]:
    """Return what the router's role may do, resource by action."""
    policy = resource(stack, "AWS::IAM::Policy", "RouterRoleDefaultPolicy")["PolicyDocument"]
    found: dict[str, Any] = {}
    for statement in policy["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            found.setdefault(action, []).append(statement["Resource"])
    return found


def test_a_release_is_enough(stack: cdk.Stack) -> None:
    made = release(stack)
    Router(stack, "Router", release=made)

    function = resource(stack, "AWS::Lambda::Function", "RouterFunction")
    variables = function["Environment"]["Variables"]
    assert variables["POWERTOOLS_SERVICE_NAME"] == "search"
    assert variables["TABLE_NAME"] == stack.resolve(made.table.table_name)
    assert variables["STUDENT_PRICES"]
    assert (variables["HEAD_MODE"], variables["HEAD_BUCKET"]) == ("last_resort", "search-data")
    assert function["MemorySize"] == RouterProps.model_fields["memory_mb"].default
    found = allowed(stack)
    assert "releases/search/*/head.bin" in str(found["s3:GetObject"])
    assert "kms:Decrypt" not in found
    Template.from_stack(stack).resource_count_is("AWS::ApiGatewayV2::Api", 1)


def test_a_release_without_heads_gives_none(stack: cdk.Stack) -> None:
    Router(stack, "Router", release=release(stack, props=ReleaseProps(head=HeadProps(mode="off"))))

    function = resource(stack, "AWS::Lambda::Function", "RouterFunction")
    assert "HEAD_BUCKET" not in function["Environment"]["Variables"]
    assert "s3:GetObject" not in allowed(stack)


@pytest.mark.parametrize("has_model_key", [True, False])
def test_the_keys_of_a_release_are_used(stack: cdk.Stack, has_model_key: bool) -> None:
    """Also that of a table which was imported without it."""
    own = key(stack, "Own")
    table = dynamodb.Table.from_table_name(stack, "Table", "releases")
    stores = ReleaseStores(table=table, key=own)
    Router(stack, "Router", release=release(stack, has_model_key=has_model_key, stores=stores))

    policy = resource(stack, "AWS::IAM::Policy", "RouterRoleDefaultPolicy")["PolicyDocument"]
    uses = [each for each in policy["Statement"] if "kms:Decrypt" in each["Action"]]
    assert {each["Resource"] for each in uses} == {own.key_arn}
    services = str([each["Condition"] for each in uses])
    assert "dynamodb." in services
    assert ("bedrock." in services) is has_model_key


def test_a_reference_needs_no_release_in_this_app(stack: cdk.Stack) -> None:
    reference = ReleaseReference(
        owner="search",
        table=dynamodb.Table.from_table_name(stack, "Table", "releases"),
        student=STUDENT,
        key=key(stack, "Own"),
    )
    Router(stack, "Router", release=reference, props=RouterProps(base_model="us.amazon.nova-lite-v1:0"))

    found = allowed(stack)
    assert found["kms:Decrypt"] == [reference.key and reference.key.key_arn]
    assert "s3:GetObject" not in found
    assert "nova-lite" in str(found["bedrock:InvokeModel"])
