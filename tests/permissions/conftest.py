"""Fixtures of the proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.permissions.calls import recorded
from tests.permissions.grants import environments
from tests.permissions.proof import Proof
from tests.stacks.fixtures import assemblies_folder

__all__ = ["assemblies_folder"]


@pytest.fixture(scope="session")
def proof(assemblies_folder: Path) -> Proof:
    """Return the proof of all environments with the recorded calls."""
    return Proof(tuple(environments(assemblies_folder)), frozenset(recorded()))
