"""The Makefile: its targets are listed, on a terminal of 80 columns."""

from __future__ import annotations

import re
import subprocess

from stacks.settings import PROJECT


def test_each_target_is_listed_within_80_columns() -> None:
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    shown = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    explained = re.findall(r"^([a-z-]+):.*## (.*)", text, flags=re.M)
    assert len(explained) > 30
    words = " ".join(shown.split())
    assert [name for name, told in explained if f"make {name} {told}" not in words] == []
    assert max(map(len, shown.splitlines())) <= 80
