"""Fixtures of the custom resources' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distilled_router.task.task import Task
from local.bedrock import BedrockStandIn
from tests.unit.resource_scenes import World, training_rows


@pytest.fixture(scope="session")
def task() -> Task:
    """Return the project's task."""
    return Task.load()


@pytest.fixture(scope="session")
def rows(task: Task) -> bytes:
    """Return a valid training file."""
    return training_rows(task)


@pytest.fixture(scope="session")
def stage(rows: bytes) -> Iterator[World]:
    """Yield one stand-in for all tests. Its client makes each call once, since botocore's pauses are real."""
    with BedrockStandIn() as server:
        for key in ("datasets/d1/training.jsonl", "other.jsonl"):
            server.s3.put_object(Bucket="data", Key=key, Body=rows)
        yield World(server, server.client("bedrock", attempts=1), server.s3)


@pytest.fixture
def world(stage: World) -> World:
    """Return an empty account whose jobs find their data. Its clock continues from test to test."""
    stage.server.reset()
    return World(stage.server, stage.bedrock, stage.s3)
