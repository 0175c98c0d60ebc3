"""Which CDK and which Node.js are used, and what an assembly says about its stacks."""

import json
import os
import sys
from pathlib import Path

import pytest

from operate import cdk
from operate.cdk import Stack
from operate.errors import OperateError
from stacks.settings import PROJECT
from tests.unit.operate.test_node import fake_node


def test_no_node_at_all_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdk, "machine_node", lambda: None)
    monkeypatch.setattr(cdk, "packaged_node", lambda: None)
    cdk.node.cache_clear()
    with pytest.raises(OperateError, match=r"No Node\.js 22") as caught:
        cdk.node()
    assert "make install" in caught.value.advice


def test_node_and_python_of_the_project_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = fake_node(tmp_path / "bin", "echo v24.0.0")
    monkeypatch.setenv("PATH", folder + os.pathsep + os.environ["PATH"])
    cdk.node.cache_clear()
    try:
        assert cdk.tool_path().startswith(folder + os.pathsep)
        assert cdk.with_tools({"PATH": "/elsewhere"})["PATH"] == cdk.tool_path()
    finally:
        cdk.node.cache_clear()


def test_the_cdk_is_the_locked_npm_package() -> None:
    lock = json.loads((PROJECT / "operate" / "cdk-cli" / "package-lock.json").read_text())
    script = Path(cdk.command(["--version"])[1])
    installed = json.loads((script.parents[1] / "package.json").read_text())
    assert installed["version"] == lock["packages"]["node_modules/aws-cdk"]["version"]


def test_a_missing_cdk_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(OperateError, match="not installed") as caught:
        cdk.command(["--version"])
    assert "make install" in caught.value.advice


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
