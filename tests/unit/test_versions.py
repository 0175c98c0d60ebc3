"""The version in pyproject.toml is the newest one of the changelog."""

from __future__ import annotations

import re
import tomllib
from datetime import date

from stacks.settings import PROJECT

_HEADING = re.compile(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\S+)$", re.MULTILINE)


def test_changelog_has_the_version_and_a_section_for_what_is_not_released() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    assert headings[0] == "## [Unreleased]"
    found = [(tuple(map(int, numbers)), date.fromisoformat(day)) for *numbers, day in _HEADING.findall(text)]
    assert len(found) == len(headings) - 1
    assert found == sorted(found, reverse=True)
    assert ".".join(map(str, found[0][0])) == project["version"]
