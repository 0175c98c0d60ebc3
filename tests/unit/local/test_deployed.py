"""How an environment's releases are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from local import status
from local.state import State
from operate import deployed
from operate.aws import Aws
from operate.errors import LocalError

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


def test_environment_in_aws_is_found_on_every_page(answered: Any, tmp_path: Path) -> None:
    answered([[OTHER], [OTHER, TABLE]])
    found = deployed.deployed("dev", State(tmp_path))
    assert (found.environment, found.owner, found.table) == ("dev", "video-router-dev", "router-releases")
    assert found.keep_releases == 1


@pytest.mark.parametrize(
    "error",
    [NoCredentialsError(), ClientError({"Error": {"Code": "ValidationError"}}, "ListStackResources")],
)
def test_stack_that_cannot_be_read_is_named(answered: Any, tmp_path: Path, error: Exception) -> None:
    answered(error)
    with pytest.raises(LocalError, match="video-router-dev-release can't be read in us-east-1") as caught:
        deployed.deployed("dev", State(tmp_path))
    assert "make deploy ENV=dev" in caught.value.advice


def test_stack_without_a_table_yet_is_named(answered: Any, tmp_path: Path) -> None:
    answered([[OTHER]])
    with pytest.raises(LocalError, match="no releases table yet"):
        deployed.deployed("dev", State(tmp_path))


def test_local_system_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="does not run") as caught:
        deployed.deployed("local", State(tmp_path))
    assert "make local" in caught.value.advice


def test_local_system_is_asked_at_its_own_endpoints(
    answered: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answered([[TABLE]])
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL", "CA_BUNDLE", "ENDPOINT_URL_BEDROCK")
    variables = {f"AWS_{name}": "x" for name in names} | {"AWS_REGION": "us-east-1"}
    monkeypatch.setattr(status, "variables", lambda _: variables)
    assert deployed.deployed("local", State(tmp_path)).owner == "video-router-local"
