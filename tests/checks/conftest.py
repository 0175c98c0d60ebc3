"""The assemblies, shared with the other tests of a session."""

from tests.stacks.fixtures import assemblies, assemblies_folder

__all__ = ["assemblies", "assemblies_folder"]
