"""Which Node.js is used, and what an assembly says about its stacks."""

import json
import os
from pathlib import Path

import pytest

from operate import cdk
from operate.cdk import Stack
from operate.errors import OperateError


def fake_node(folder: Path, says: str) -> str:
    folder.mkdir(exist_ok=True)
    node = folder / "node"
    node.write_text(f"#!/bin/sh\n{says}\n")
    node.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("output", "version"),
    [("v24.19.0\n", 24), ("v20.1.0", 20), ("", 0), ("version 'x' is not installed", 0)],
)
def test_node_versions_are_read(output: str, version: int) -> None:
    assert cdk.node_version(output) == version


def test_a_new_enough_node_of_the_machine_is_used(tmp_path: Path) -> None:
    path = fake_node(tmp_path / "bin", "echo v22.0.0")
    assert cdk.machine_node(path) == tmp_path / "bin" / "node"


@pytest.mark.parametrize("says", ["echo v20.19.0", "echo shim >&2; exit 127"])
def test_an_old_or_broken_node_is_not(tmp_path: Path, says: str) -> None:
    assert cdk.machine_node(fake_node(tmp_path / "bin", says)) is None


def test_no_node_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdk, "machine_node", lambda: None)
    monkeypatch.setattr(cdk, "packaged_node", lambda: None)
    cdk.node.cache_clear()
    with pytest.raises(OperateError, match=r"No Node\.js 22") as caught:
        cdk.node()
    assert ".venv/.installed" in caught.value.advice


def test_node_and_python_of_the_project_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = fake_node(tmp_path / "bin", "echo v24.0.0")
    monkeypatch.setenv("PATH", folder + os.pathsep + os.environ["PATH"])
    cdk.node.cache_clear()
    try:
        assert cdk.tool_path().startswith(folder + os.pathsep)
        assert cdk.with_tools({"PATH": "/elsewhere"})["PATH"] == cdk.tool_path()
    finally:
        cdk.node.cache_clear()


def test_stacks_come_in_their_order_of_dependency(tmp_path: Path) -> None:
    def artifact(name: str, *dependencies: str) -> dict[str, object]:
        (tmp_path / f"{name}.json").write_text(json.dumps({"Resources": {"a": {}, "b": {}}}))
        properties = {"templateFile": f"{name}.json", "stackName": f"router-{name}"}
        return {
            "type": "aws:cloudformation:stack",
            "properties": properties,
            "dependencies": [*dependencies, f"{name}.assets"],
        }

    artifacts = {
        "release": artifact("release", "distillation"),
        "distillation": artifact("distillation", "data"),
        "data.assets": {"type": "cdk:asset-manifest"},
        "data": artifact("data"),
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"artifacts": artifacts}))
    assert cdk.stacks(tmp_path) == [
        Stack("router-data", 2),
        Stack("router-distillation", 2),
        Stack("router-release", 2),
    ]
