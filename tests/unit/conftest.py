"""Fixtures of tests that span several functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from distilled_router.release.table import Releases
from local.bedrock import BedrockStandIn, Quotas, Settings
from tests.unit.entry_points import Theatre
from tests.unit.local.bedrock.scenes import labelled, lines
from tests.unit.release_world import OWNER


@pytest.fixture(scope="session")
def theatre(emulator: str, aws: Callable[[str], Any]) -> Iterator[Theatre]:
    """Return accounts whose jobs find their training data; the releases table is emptied each time."""
    table = boto3.resource("dynamodb", endpoint_url=emulator).create_table(
        TableName=f"theatre-{os.getpid()}",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with BedrockStandIn(settings=Settings(quotas=Quotas(model_units=9))) as server:
        server.s3.put_object(Bucket="data", Key="datasets/d1/training.jsonl", Body=lines(labelled()))
        plain = server.client("bedrock", attempts=1)
        yield Theatre(server, plain, Releases(table, OWNER), aws("stepfunctions"), aws("s3"))
