"""Synthesize all environments, once for the same code.

Two processes synthesize several environments each, because the CDK's validators need some ten seconds to
start and two for each further app. The processes have no network and no credentials. Assemblies are kept
in `.cache/`, by the digest of all files that synthesis reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from cdk_distilled_router.common import bundles
from stacks.settings import PROJECT
from tests.stacks import bad_example, offline
from tests.stacks.environments import ALL

# Files of this project that synthesis may read. A test compares them with READS, the files that it read.
INPUTS = (
    *("cdk_distilled_router", "data", "environments", "examples", "lambda", "stacks", "task"),
    *("tests/__init__.py", "tests/stacks", "app.py", "cdk.json", "pyproject.toml", "requirements.txt"),
)
READS = "reads.txt"
VARIABLES = ("CDK_", "JSII_", "NODE_")
PROCESSES, KEPT = 2, 2


def assemblies() -> Path:
    """Return the folder with an assembly for each environment; the first test process creates it."""
    cache = PROJECT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / "assemblies.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = cache / f"assemblies-{key(PROJECT, os.environ)}"
        if not made.exists():
            work = cache / "assemblies.work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            _synthesize(work)
            work.rename(made)
        os.utime(made)
        _forget(cache)
    return made


def key(project: Path, environ: Mapping[str, str]) -> str:
    """Return a digest of everything that decides the assemblies: files, packages, Node and variables."""
    whole = hashlib.sha256(repr((sys.version, *_packages(), _node())).encode())
    whole.update(repr(sorted(item for item in environ.items() if item[0].startswith(VARIABLES))).encode())
    for path in inputs(project):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(project).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()[:32]


def inputs(project: Path) -> Iterator[Path]:
    """Yield the files that decide the assemblies."""
    for name in INPUTS:
        found = project / name
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("test_"):
                yield path


def _packages() -> list[tuple[str, str]]:
    return sorted((package.name, package.version) for package in metadata.distributions())


def _node() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout


def _synthesize(work: Path) -> None:
    # Both processes need the dependencies, and the first build downloads them.
    bundles.dependencies_bundle()
    names = [*ALL, bad_example.NAME]
    started = [_start(work, names[number::PROCESSES], number) for number in range(PROCESSES)]
    for process in started:
        _, errors = process.communicate(timeout=1800)
        if process.returncode:
            raise RuntimeError(f"Synthesis failed:\n{errors[-5000:]}")


def _start(work: Path, names: Sequence[str], number: int) -> subprocess.Popen[str]:
    # The folder has the files that keep the process offline, and the list of its reads.
    own = work / f"process-{number}"
    own.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stacks.synthesize_all", str(work), str(own / READS), *names],
        cwd=PROJECT,
        env=offline.environment(own),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _forget(cache: Path) -> None:
    """Delete all assemblies but the newest; those of another branch may soon be needed again."""
    kept = sorted(cache.glob("assemblies-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in kept[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
