"""The import contracts in pyproject.toml hold, and violations are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stacks.settings import PROJECT

CODE = ("local", "operate", "stacks", "cdk_distilled_router", "lambda")
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(project: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts of a project."""
    return subprocess.run(
        [sys.executable, "-c", LINTER, "--no-cache", "--no-logo"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{project / 'lambda'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the code, with the same contracts."""
    for name in CODE:
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold() -> None:
    done = lint(PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("importing", "imported"),
    [
        ("operate/cost.py", "local.state"),
        ("cdk_distilled_router/dataset.py", "stacks.settings"),
        ("stacks/data.py", "operate.cdk"),
        ("stacks/data.py", "router.handler"),
        ("lambda/router/handler.py", "evaluation.handler"),
        ("lambda/distilled_router/env.py", "router.handler"),
    ],
)
def test_contract_that_is_broken_is_found(copy: Path, importing: str, imported: str) -> None:
    file = copy / importing
    file.write_text(file.read_text(encoding="utf-8") + f"\nimport {imported}\n", encoding="utf-8")

    done = lint(copy)

    module = importing.removeprefix("lambda/").removesuffix(".py").replace("/", ".")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{module} -> {imported} " in done.stdout


def test_every_package_is_under_a_contract() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    folders = {path.name for path in (PROJECT / "lambda").iterdir() if any(path.glob("*.py"))}
    assert folders | {name for name in CODE if name != "lambda"} == set(contracts["root_packages"])
