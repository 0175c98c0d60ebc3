"""Fixtures of the tests on custom resources."""

from tests.unit.resource_fixtures import rows, stage, task, world

__all__ = ["rows", "stage", "task", "world"]
