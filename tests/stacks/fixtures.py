"""Fixtures of the synthesized environments: `assembly` is each of them in turn, `assemblies` has all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.stacks import synthesis
from tests.stacks.assembly import Assembly
from tests.stacks.environments import ALL, QUICK, settings_of


@pytest.fixture(scope="session")
def assemblies_folder() -> Path:
    """Return the folder with the cloud assemblies of all environments and of the bad example."""
    return synthesis.assemblies()


@pytest.fixture(scope="session")
def assemblies(assemblies_folder: Path) -> Mapping[str, Assembly]:
    """Return the assemblies of all environments and variants by name."""
    return {name: Assembly(name, settings_of(name), assemblies_folder / name) for name in ALL}


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL])
def assembly(request: pytest.FixtureRequest, assemblies: Mapping[str, Assembly]) -> Assembly:
    """Return the assembly of each environment in turn."""
    return assemblies[request.param]
