"""One stand-in for all tests, reset before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.bedrock import BedrockStandIn
from tests.unit.local.bedrock.scenes import Scene


@pytest.fixture(scope="session")
def stage() -> Iterator[Scene]:
    with BedrockStandIn() as bedrock:
        yield Scene(bedrock)


@pytest.fixture
def scene(stage: Scene) -> Scene:
    stage.bedrock.reset()
    stage.s3.objects.clear()
    return stage
