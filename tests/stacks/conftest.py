"""Fixtures of the tests on templates."""

from tests.stacks.fixtures import assemblies, assemblies_folder, assembly

__all__ = ["assemblies", "assemblies_folder", "assembly"]
