"""A bucket in another team's app: who writes to the folders of the constructs, and whose buckets are read."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Match, Template

from cdk_distilled_router import (
    DatasetFile,
    InvocationLogs,
    JobData,
    QueriesFolder,
    allow_services,
    only_owners_write,
)
from cdk_distilled_router.common.grants import Permission
from cdk_distilled_router.job_inputs import JobInputs, read_uri
from cdk_distilled_router.props import JobProps
from distilled_router.bedrock.naming import OWNER_TAG
from tests.stacks import declaring

OTHER = "999999999999"


@pytest.fixture
def stack() -> cdk.Stack:
    return cdk.Stack(cdk.App(analytics_reporting=False), "search")


def test_bucket_of_two_owners_is_closed_to_all_others(stack: cdk.Stack) -> None:
    only_owners_write(s3.Bucket(stack, "Data"), "search", "ads")
    denied = {
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Condition": {"StringNotEquals": {f"aws:PrincipalTag/{OWNER_TAG}": ["search", "ads"]}},
    }
    Template.from_stack(stack).has_resource_properties(
        "AWS::S3::BucketPolicy", {"PolicyDocument": {"Statement": [Match.object_like(denied)]}}
    )


def test_policy_that_is_managed_elsewhere_is_told(stack: cdk.Stack) -> None:
    bucket = s3.Bucket.from_bucket_name(stack, "Data", "search-data")
    with pytest.raises(ValueError, match="Add this statement to it where it is managed") as error:
        only_owners_write(bucket, "search")
    assert "search-data/datasets/*" in str(error.value)


def test_services_may_use_a_key_for_the_logs_of_stack_and_owners(stack: cdk.Stack) -> None:
    allow_services(kms.Key(stack, "Key"), "video", "ads")
    (key,) = Template.from_stack(stack).find_resources("AWS::KMS::Key").values()
    statements = {each.get("Sid"): each for each in key["Properties"]["KeyPolicy"]["Statement"]}
    groups = str(statements["LogGroups"]["Condition"])
    for name in ("search", "video", "ads"):
        assert f":log-group:{name}-*" in groups
        assert f":log-group:/aws/vendedlogs/states/{name}-*" in groups
    assert {"AlarmsPublish", "StateMachineLogs"} <= statements.keys()


def test_key_policy_that_is_managed_elsewhere_is_told(stack: cdk.Stack) -> None:
    key = kms.Key.from_key_arn(stack, "Key", "arn:aws:kms:us-east-1:111122223333:key/a")
    with pytest.raises(ValueError, match="Add these statements to it where it is managed") as error:
        allow_services(key, "search")
    assert "delivery.logs.amazonaws.com" in str(error.value)


def test_roles_of_the_constructs_have_the_owners_tag(stack: cdk.Stack) -> None:
    declaring.job(
        stack,
        "Job",
        owner="search",
        bucket=s3.Bucket(stack, "Data"),
        student="amazon.nova-micro-v1:0:128k",
        teacher="us.amazon.nova-pro-v1:0",
        training_key="datasets/training.jsonl",
    )
    template = Template.from_stack(stack).to_json()["Resources"].values()
    roles = [resource for resource in template if resource["Type"] == "AWS::IAM::Role"]
    assert len(roles) > 2
    assert all({"Key": OWNER_TAG, "Value": "search"} in role["Properties"]["Tags"] for role in roles)
    tagged = {resource["Type"] for resource in template if "Tags" in resource.get("Properties", {})}
    assert "AWS::Lambda::Function" not in tagged


def accounts(permissions: list[Permission]) -> set[Any]:
    return {p.conditions["StringEquals"]["aws:ResourceAccount"] for p in permissions}


@pytest.mark.parametrize(
    ("given", "expected"), [(None, cdk.Aws.ACCOUNT_ID), (OTHER, OTHER)], ids=["ours", "other"]
)
def test_sources_are_read_in_one_account_only(given: str | None, expected: str) -> None:
    file = DatasetFile("search-rows", "training.jsonl", "v1", given)
    folder = QueriesFolder("search-rows", "queries/", "0" * 16, given)
    logs = InvocationLogs(uri="s3://search-logs/bedrock/", account=given)
    validator = read_uri("s3://search-rows/validation.jsonl", account=given)
    for permissions in (file.permissions(), folder.permissions(), logs.permissions(), validator):
        assert accounts(permissions) == {expected}


def test_account_and_hashes_do_not_change_the_model() -> None:
    """The job's name stands for what decides the model."""
    props = JobProps(teacher="us.amazon.nova-pro-v1:0", student="amazon.nova-micro-v1:0:128k")
    plain = JobInputs(props=props, data=JobData(training_key="d/training.jsonl"), model_key=False)
    given = JobData(training_key="d/training.jsonl", account=OTHER, holdout_sha256="0" * 64)
    assert JobInputs(props=props, data=given, model_key=False).digest() == plain.digest()
