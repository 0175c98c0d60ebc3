"""The synthesised environments, the same as for the tests in tests/stacks."""

from tests.stacks.fixtures import assemblies, assemblies_folder

__all__ = ["assemblies", "assemblies_folder"]
