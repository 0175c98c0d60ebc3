"""Fixtures of the operator's commands: releases in an account of the test doubles."""

from tests.unit.release_world import stage, world

__all__ = ["stage", "world"]
