"""How an environment's releases are found."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from operate import deployed
from operate.aws import Aws
from operate.environment import Environment
from operate.errors import OperateError
from stacks.settings import load

TABLE = {"ResourceType": "AWS::DynamoDB::Table", "PhysicalResourceId": "router-releases"}
OTHER = {"ResourceType": "AWS::SNS::Topic", "PhysicalResourceId": "topic"}


class Client:
    """CloudFormation with these pages of resources, or an error; and DynamoDB."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, **_: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [{"StackResourceSummaries": page} for page in self.answer]

    def Table(self, name: str) -> str:  # noqa: N802 - boto3's name
        return name


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Any:
    def answer(given: Any) -> None:
        client = Client(given)
        for name in ("cloudformation", "dynamodb", "bedrock", "stepfunctions"):
            monkeypatch.setattr(Aws, name, client)

    return answer


def environment(name: str = "dev", **variables: str) -> Environment:
    return Environment(name, load(name), variables)


def test_environment_in_aws_is_found_on_every_page(answered: Any) -> None:
    answered([[OTHER], [OTHER, TABLE]])
    found = deployed.deployed(environment())
    assert (found.environment, found.owner, found.table) == ("dev", "video-router-dev", "router-releases")
    assert (found.keep_releases, found.poll_seconds) == (1, deployed.POLL_SECONDS)
    assert found.deploy_command == "make deploy ENV=dev"


@pytest.mark.parametrize(
    "error",
    [NoCredentialsError(), ClientError({"Error": {"Code": "ValidationError"}}, "ListStackResources")],
)
def test_stack_that_cannot_be_read_is_named(answered: Any, error: Exception) -> None:
    answered(error)
    with pytest.raises(OperateError, match="video-router-dev-release can't be read in us-east-1") as caught:
        deployed.deployed(environment())
    assert "make deploy ENV=dev" in caught.value.advice


def test_stack_without_a_table_yet_is_named(answered: Any) -> None:
    answered([[OTHER]])
    with pytest.raises(OperateError, match="no releases table yet"):
        deployed.deployed(environment())


def test_system_that_is_reached_by_variables_is_watched_at_their_pace(answered: Any) -> None:
    answered([[TABLE]])
    found = deployed.deployed(environment("local", AWS_ENDPOINT_URL="https://127.0.0.1:1", WATCH_SECONDS="1"))
    assert (found.owner, found.poll_seconds) == ("video-router-local", 1.0)
    assert found.deploy_command == "make local"
