"""The wheel works for an app in another repository, without the rest of this one."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdk_distilled_router.common.packages import uv_environment
from stacks.settings import PROJECT
from tests import documented
from tests.locks import normal

FUNCTIONS = sorted(path.parent.name for path in (PROJECT / "lambda").glob("*/handler.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build and return the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=600)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an empty environment with this wheel and its dependencies, in our versions."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run(
        ["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, timeout=600
    )
    python = folder / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--python", str(python)]
    versions = ["--constraint", str(PROJECT / "requirements.txt")]
    subprocess.run([*install, *versions, str(wheel)], env=uv_environment(), check=True, timeout=1200)
    return python


def synthesize(python: Path, folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run an app in a folder outside the repository."""
    (folder / "app.py").write_text(source, encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "XDG_CACHE_HOME": str(folder / "cache"),
        "CDK_OUTDIR": str(folder / "cdk.out"),
    }
    return subprocess.run(
        [str(python), "app.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def test_it_holds_two_packages_and_nothing_with_a_generic_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "cdk_distilled_router",
        "distilled_router",
    }
    folders = {name.split("/")[2] for name in names if re.match(r"cdk_distilled_router/lambda/\w+/", name)}
    assert folders == {*FUNCTIONS, "distilled_router"}
    assert "cdk_distilled_router/lambda/requirements.txt" in names
    assert not [name for name in names if "__pycache__" in name]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_both_copies_of_the_shared_package_are_the_same(wheel: Path) -> None:
    """Constructs import one copy, and bundles contain the other."""
    archive = zipfile.ZipFile(wheel)
    shared = [name for name in archive.namelist() if name.startswith("distilled_router/")]
    assert shared
    for name in shared:
        assert archive.read(name) == archive.read(f"cdk_distilled_router/lambda/{name}")


def imports() -> Iterator[str]:
    """Return every package that a module of the two packages imports."""
    for folder in (PROJECT / "cdk_distilled_router", PROJECT / "lambda" / "distilled_router"):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Import(names=names):
                        yield from (alias.name.partition(".")[0] for alias in names)
                    case ast.ImportFrom(module=str(module), level=0):
                        yield module.partition(".")[0]


def test_it_declares_what_it_imports() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {normal(re.split(r"[<>=]", line)[0]) for line in project["dependencies"]}
    # The first three come with the CDK, pydantic and boto3; functions get Powertools from their layer.
    brought = {"jsii", "pydantic-core", "botocore", "aws-lambda-powertools"}

    found = {normal(name) for name in imports()} - {normal(name) for name in sys.stdlib_module_names}
    found -= {"cdk-distilled-router", "distilled-router", *brought}
    assert {"aws-cdk" if name == "aws-cdk-lib" else name for name in declared} >= found
    assert all(">=" in line for line in project["dependencies"])


@pytest.mark.slow
def test_every_documented_example_synthesizes(python: Path, tmp_path: Path) -> None:
    """Each in a stack of its own, in a folder outside of the repository, with the installed wheel alone."""
    task = tmp_path / "task"
    task.mkdir()
    for file in (PROJECT / "task").iterdir():
        if file.is_file():
            (task / file.name).write_bytes(file.read_bytes())
    (tmp_path / "search.py").write_text(documented.whole_app(), encoding="utf-8")

    done = synthesize(python, tmp_path, documented.app())

    assert done.returncode == 0, done.stderr[-3000:]
    stacks = {path.name.partition(".")[0] for path in (tmp_path / "cdk.out").glob("*.template.json")}
    assert stacks == {"Search", *documented.stacks()}
    template = json.loads((tmp_path / "cdk.out" / "Search.template.json").read_text())
    types = {resource["Type"] for resource in template["Resources"].values()}
    assert {"Custom::BedrockDistillationJob", "Custom::BedrockRelease", "AWS::Lambda::LayerVersion"} <= types
    bundles = {
        path.name.rpartition("-")[0] for path in (tmp_path / "cache" / "cdk-distilled-router").iterdir()
    }
    assert "dependencies" in bundles
    assert "function-evaluation" in bundles
