"""Run the suite on a broken version: a copy of the project with one changed file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stacks.settings import PROJECT
from tests.broken.versions import Version

# All tests of the custom resources, not a selection.
SUITE = (
    "dataset",
    "distillation_job",
    "existing",
    "provisioned_throughput",
    "distilled_router/aws",
    "distilled_router/bedrock",
)
COPIED = (
    "cdk_distilled_router",
    "data",
    "environments",
    "lambda",
    "local",
    "operate",
    "stacks",
    "task",
    "tests",
)
FILES = ("cdk.json", "pyproject.toml")
LEFT = shutil.ignore_patterns("__pycache__", "__snapshots__", "*.pyc")
SECONDS = 1800

# A test fails, or one of its fixtures. An error of the collection names no test.
_FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+::[^\s\[]+)", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """The suite's result: whether every test passed, and the names of those that failed."""

    passed: bool
    caught_by: tuple[str, ...]
    output: str


def files(version: Version) -> list[str]:
    """Return all files of the suite, the most relevant for the broken file first, since a failure ends it."""
    path = Path(version.file)
    word = path.stem if "distilled_router" in path.parts else path.parent.name
    texts = {
        str(file.relative_to(PROJECT)): file.read_text(encoding="utf-8")
        for folder in SUITE
        for file in sorted((PROJECT / "tests" / "unit" / folder).glob("test_*.py"))
    }
    return sorted(texts, key=lambda name: -texts[name].count(word))


def attempt(
    version: Version | None, tests: Iterable[str], folder: Path, *, to_the_end: bool = False
) -> Verdict:
    """Run tests on a copy of the project in a folder: up to the first failure, or `to_the_end`."""
    copy = folder / "project"
    copy.mkdir(parents=True)
    for name in COPIED:
        shutil.copytree(PROJECT / name, copy / name, ignore=LEFT)
    for name in FILES:
        shutil.copy2(PROJECT / name, copy / name)
    if version:
        path = copy / "lambda" / version.file
        path.write_text(version.change(path.read_text(encoding="utf-8")), encoding="utf-8")
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
    # The pytest process must not find this project, nor the pytest that runs this.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    result = subprocess.run(
        [*command, f"--basetemp={folder / 'temp'}", *([] if to_the_end else ["-x"]), *tests],
        cwd=copy,
        env={**kept, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    failed = tuple(sorted(set(_FAILED.findall(result.stdout))))
    return Verdict(result.returncode == 0, failed, f"{result.stdout[-3000:]}\n{result.stderr[-2000:]}")
