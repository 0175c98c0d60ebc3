"""`app.py`: what it removes before it synthesizes."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest

from stacks.settings import PROJECT


@pytest.fixture
def remove_bundles() -> Any:
    """Return the function alone: the module synthesizes when it is imported."""
    tree = ast.parse((PROJECT / "app.py").read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if getattr(node, "name", "") == "remove_bundles"]
    names: dict[str, Any] = {"Path": Path, "shutil": shutil}
    exec(compile(ast.Module([found], []), "app.py", "exec"), names)
    return names["remove_bundles"]


def test_a_bundle_of_an_interrupted_synthesis_is_not_taken_for_whole(
    tmp_path: Path, remove_bundles: Any
) -> None:
    part = tmp_path / "asset.2053b789"
    (part / "package").mkdir(parents=True)
    (tmp_path / "asset.aa.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("{}")
    remove_bundles(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    remove_bundles(None)
