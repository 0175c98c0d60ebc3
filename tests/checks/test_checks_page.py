"""docs/checks.md."""

from __future__ import annotations

from collections.abc import Mapping

from tests.checks import document
from tests.checks.acknowledged import Acknowledged
from tests.stacks.assembly import Assembly


def test_the_page_lists_the_acknowledgements(assemblies: Mapping[str, Assembly]) -> None:
    expected = document.text(Acknowledged(assemblies[document.ENVIRONMENT].folder))
    assert document.read() == expected, "docs/checks.md is not up to date: renew it by `make checks`"
