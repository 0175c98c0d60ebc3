"""Fixtures of the custom resources' tests."""

from __future__ import annotations

import pytest

from local.bedrock import BedrockStandIn
from shared.task import Task
from tests.unit.resources.scenes import World, training_rows


@pytest.fixture(scope="session")
def task() -> Task:
    """The project's own task."""
    return Task.load()


@pytest.fixture(scope="session")
def rows(task: Task) -> bytes:
    """A good training file."""
    return training_rows(task)


@pytest.fixture
def world(bedrock_server: BedrockStandIn, rows: bytes) -> World:
    """An account whose jobs find their data. Its client makes each call once: botocore's pauses are real."""
    for key in ("datasets/d1/training.jsonl", "other.jsonl"):
        bedrock_server.s3.put_object(Bucket="data", Key=key, Body=rows)
    return World(bedrock_server, bedrock_server.client("bedrock", attempts=1), bedrock_server.s3)
