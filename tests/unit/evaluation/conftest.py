"""Fixtures of the tests on the release's functions."""

import pytest

from tests.unit.evaluation.court import Court
from tests.unit.release_world import World, stage, world

__all__ = ["stage", "world"]


@pytest.fixture
def court(world: World) -> Court:
    return Court(world)
