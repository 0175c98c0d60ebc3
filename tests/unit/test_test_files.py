"""The tests' own files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_files_have_names_of_their_own() -> None:
    """Two of one name are each found alone, and not together: pytest imports them by it."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert {name for name, count in names.items() if count > 1} == set()
