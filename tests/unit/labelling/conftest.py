"""Fixtures of the tests on labelling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.bedrock import BedrockStandIn
from tests.unit.labelling.scenes import Scene


@pytest.fixture(scope="session")
def stage() -> Iterator[Scene]:
    """Yield one stand-in for all tests. Its clients make each call once, since botocore's pauses are real."""
    with BedrockStandIn() as server:
        yield Scene(
            server, server.client("bedrock", attempts=1), server.client("bedrock-runtime", attempts=1)
        )


@pytest.fixture
def scene(stage: Scene) -> Scene:
    """Return an empty account and an empty bucket."""
    stage.server.reset()
    stage.server.s3.objects.clear()
    return Scene(stage.server, stage.bedrock, stage.runtime)
