"""Fixtures of the tests on the release's functions."""

from tests.unit.release_world import stage, world

__all__ = ["stage", "world"]
