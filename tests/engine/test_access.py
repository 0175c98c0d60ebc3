"""IAM sees what AWS gives it: the keys of items, and the tags of what a model is asked through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.engine.engine import Engine

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-access")]

ACCOUNT = "000000000000"
TABLE = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/releases"
DEPLOYMENTS = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model-deployment/*"


def session(engine: Engine, *statements: Mapping[str, Any]) -> boto3.Session:
    """Return a session of a new role with these statements."""
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": "sts:AssumeRole",
    }
    iam = engine.aws("iam")
    role = iam.create_role(RoleName="step", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))[
        "Role"
    ]
    allowed = [{"Effect": "Allow", **statement} for statement in statements]
    iam.put_role_policy(RoleName="step", PolicyName="step", PolicyDocument=json.dumps({"Statement": allowed}))
    keys = engine.aws("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="step")["Credentials"]
    return boto3.Session(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name="us-east-1"
    )


def client(engine: Engine, of: boto3.Session, service: Any) -> Any:
    """Return a role's client of one of the doubles."""
    return of.client(
        service,
        endpoint_url=engine.aws(service).meta.endpoint_url,
        verify=str(engine.state.certificate),
    )


def refused(call: Any, **parameters: Any) -> bool:
    """Return whether IAM denies a call."""
    try:
        call(**parameters)
    except ClientError as error:
        return "not authorized to perform" in str(error)
    return False


def item(name: str) -> dict[str, Any]:
    return {"id": {"S": name}}


@pytest.fixture
def items(engine: Engine) -> Any:
    """Return the DynamoDB client of a role that may write releases, and read everything of its owner."""
    engine.aws("dynamodb").create_table(
        TableName="releases",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def on(actions: list[str], keys: str) -> Mapping[str, Any]:
        condition = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [keys]}}
        return {"Action": actions, "Resource": TABLE, "Condition": condition}

    role = session(
        engine,
        on(["dynamodb:GetItem"], "search/*"),
        on(["dynamodb:UpdateItem", "dynamodb:PutItem", "dynamodb:DeleteItem"], "search/release@*"),
    )
    return client(engine, role, "dynamodb")


def test_an_item_is_written_only_under_the_keys_of_the_policy(items: Any) -> None:
    for name, denied in (("search/release@1", False), ("search/route", True), ("other/release@1", True)):
        assert refused(items.put_item, TableName="releases", Item=item(name)) is denied
        assert refused(items.update_item, TableName="releases", Key=item(name)) is denied
        assert refused(items.delete_item, TableName=TABLE, Key=item(name)) is denied
    assert not refused(items.get_item, TableName="releases", Key=item("search/route"))
    assert refused(items.get_item, TableName="releases", Key=item("other/route"))


def test_a_transaction_writes_nothing_with_one_foreign_key(engine: Engine, items: Any) -> None:
    def put(name: str) -> dict[str, Any]:
        return {"Put": {"TableName": "releases", "Item": item(name)}}

    ours = [put("search/release@1"), put("search/release@2")]

    assert refused(items.transact_write_items, TransactItems=[*ours, put("search/route")])
    assert engine.aws("dynamodb").scan(TableName="releases")["Count"] == 0
    assert not refused(items.transact_write_items, TransactItems=ours)


def test_a_model_is_asked_through_deployments_with_the_owners_tag(engine: Engine, models: list[str]) -> None:
    bedrock = engine.aws("bedrock")
    owner = "distilled-router:owner"

    def deployed(name: str, tags: list[dict[str, str]]) -> str:
        made = bedrock.create_custom_model_deployment(modelDeploymentName=name, modelArn=models[0], tags=tags)
        return str(made["customModelDeploymentArn"])

    ours = deployed("ours", [{"key": owner, "value": "search"}])
    theirs = deployed("theirs", [{"key": owner, "value": "search2"}])
    condition = {"StringEquals": {f"aws:ResourceTag/{owner}": "search"}}
    role = session(engine, {"Action": "bedrock:InvokeModel", "Resource": DEPLOYMENTS, "Condition": condition})
    ask = client(engine, role, "bedrock-runtime").converse
    messages = [{"role": "user", "content": [{"text": "red car"}]}]

    assert not refused(ask, modelId=ours, messages=messages)
    assert refused(ask, modelId=theirs, messages=messages)
    bedrock.untag_resource(resourceARN=ours, tagKeys=[owner])
    assert refused(ask, modelId=ours, messages=messages)
