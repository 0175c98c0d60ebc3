"""The permissions that a call needs, and calls that IAM denies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.bedrock.roles import Need, RoleS3
from local.bedrock.standin import ACCESS_KEY, BedrockStandIn

STUDENT, TEACHER = "amazon.nova-micro-v1:0:128k", "us.amazon.nova-pro-v1:0"
ROLE = "arn:aws:iam::000000000000:role/jobs"
ACCOUNT = "arn:aws:bedrock:us-east-1:000000000000"
JOB = {
    "jobName": "search",
    "customModelName": "search",
    "roleArn": ROLE,
    "baseModelIdentifier": STUDENT,
    "customizationType": "DISTILLATION",
    "trainingDataConfig": {"s3Uri": "s3://data/rows/training.jsonl"},
    "outputDataConfig": {"s3Uri": "s3://data/jobs/"},
    "customizationConfig": {
        "distillationConfig": {"teacherModelConfig": {"teacherModelIdentifier": TEACHER}}
    },
    "jobTags": [{"key": "owner", "value": "search"}],
}


class Iam:
    """A double of the IAM check: denies the actions in `denied` and records all needs."""

    def __init__(self) -> None:
        self.checked: list[tuple[str, Need]] = []
        self.denied: set[str] = set()

    def authorize(self, caller: str, needs: Sequence[Need]) -> str:
        self.checked += [(caller, need) for need in needs]
        found = [need.action for need in needs if need.action in self.denied]
        return f"not authorized to perform: {found[0]}" if found else ""

    def of(self, caller: str) -> set[tuple[str, str]]:
        return {(need.action, need.resource) for who, need in self.checked if who == caller}


@pytest.fixture
def iam() -> Iam:
    return Iam()


@pytest.fixture
def bedrock(iam: Iam) -> Iterator[Any]:
    with BedrockStandIn(authorize=iam.authorize) as stand_in:
        yield stand_in.client("bedrock")


def test_job_needs_permission_on_its_models_tags_and_role(bedrock: Any, iam: Iam) -> None:
    bedrock.create_model_customization_job(**JOB)
    new = f"{STUDENT}/aaaaaaaaaaaa"
    assert iam.of(ACCESS_KEY) == {
        ("bedrock:CreateModelCustomizationJob", f"arn:aws:bedrock:us-east-1::foundation-model/{STUDENT}"),
        ("bedrock:CreateModelCustomizationJob", f"{ACCOUNT}:custom-model/{new}"),
        ("bedrock:CreateModelCustomizationJob", f"{ACCOUNT}:model-customization-job/{new}"),
        ("bedrock:TagResource", f"{ACCOUNT}:model-customization-job/{new}"),
        ("iam:PassRole", ROLE),
    }
    assert ("bedrock:InvokeModel", f"{ACCOUNT}:inference-profile/{TEACHER}") in iam.of(ROLE)


def test_the_accounts_logging_is_no_resource(bedrock: Any, iam: Iam) -> None:
    target = {"bucketName": "logs"}
    bedrock.put_model_invocation_logging_configuration(loggingConfig={"s3Config": target})
    assert bedrock.get_model_invocation_logging_configuration()["loggingConfig"]["s3Config"] == target
    bedrock.delete_model_invocation_logging_configuration()
    names = ("Put", "Get", "Delete")
    assert iam.of(ACCESS_KEY) == {
        (f"bedrock:{name}ModelInvocationLoggingConfiguration", "*") for name in names
    }


def test_service_role_is_asked_without_the_profile_and_a_caller_with_it(bedrock: Any, iam: Iam) -> None:
    """AWS documents the roles that Bedrock assumes without a condition on the profile."""
    bedrock.create_model_customization_job(**JOB)
    invoking = [need for who, need in iam.checked if who == ROLE and need.action == "bedrock:InvokeModel"]
    assert len(invoking) > 1
    assert all(not need.context for need in invoking)
    with BedrockStandIn(authorize=iam.authorize) as stand_in:
        iam.checked.clear()
        message = {"role": "user", "content": [{"text": "cat videos"}]}
        stand_in.client("bedrock-runtime").converse(modelId=TEACHER, messages=[message])
    profile = {"bedrock:InferenceProfileArn": f"{ACCOUNT}:inference-profile/{TEACHER}"}
    assert [need.context for who, need in iam.checked if who == ACCESS_KEY][1:] == [profile] * 3


def test_denied_call_changes_nothing(bedrock: Any, iam: Iam) -> None:
    iam.denied = {"iam:PassRole"}
    with pytest.raises(ClientError) as refusal:
        bedrock.create_model_customization_job(**JOB)
    assert refusal.value.response["Error"]["Code"] == "AccessDeniedException"
    assert bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []


def test_stop_is_authorized_with_the_tags_of_the_job(bedrock: Any, iam: Iam) -> None:
    arn = bedrock.create_model_customization_job(**JOB)["jobArn"]
    iam.checked.clear()
    bedrock.stop_model_customization_job(jobIdentifier="search")
    ((_, need),) = iam.checked
    assert (need.action, need.resource) == ("bedrock:StopModelCustomizationJob", arn)
    assert need.context == {"aws:ResourceTag/owner": "search"}


def test_unknown_name_is_authorized_unchanged(bedrock: Any, iam: Iam) -> None:
    with pytest.raises(ClientError):
        bedrock.get_model_customization_job(jobIdentifier="unknown")
    assert iam.of(ACCESS_KEY) == {
        ("bedrock:GetModelCustomizationJob", f"{ACCOUNT}:model-customization-job/unknown")
    }


def test_service_role_needs_permission_on_objects(iam: Iam) -> None:
    s3 = RoleS3(None, ROLE, iam.authorize)
    iam.denied = {"s3:GetObject", "s3:PutObject", "s3:ListBucket"}
    with pytest.raises(PermissionError):
        s3.get_object(Bucket="data", Key="rows/training.jsonl")
    with pytest.raises(PermissionError):
        s3.put_object(Bucket="data", Key="jobs/metrics.csv", Body=b"")
    with pytest.raises(PermissionError):
        s3.list_objects_v2(Bucket="data", Prefix="rows/")
    assert iam.of(ROLE) == {
        ("s3:GetObject", "arn:aws:s3:::data/rows/training.jsonl"),
        ("s3:PutObject", "arn:aws:s3:::data/jobs/metrics.csv"),
        ("s3:ListBucket", "arn:aws:s3:::data"),
    }
