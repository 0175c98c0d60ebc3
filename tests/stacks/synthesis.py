"""All environments' cloud assemblies, synthesized once for the same code.

Two processes make them, each several one after another: the CDK's validators need some ten seconds to start
and two for each further app; and in those processes there is neither a network nor a credential. They are
kept in `.cache/`, by the digest of all that synthesis reads.
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

# What synthesis may read of this project. `reads.txt` says what it read: a test holds that against this.
INPUTS = (
    *("cdk_distilled_router", "data", "environments", "examples", "lambda", "stacks", "task"),
    *("tests/__init__.py", "tests/stacks", "app.py", "cdk.json", "pyproject.toml", "requirements.txt"),
)
READS = "reads.txt"
VARIABLES = ("CDK_", "JSII_", "NODE_")
PROCESSES, KEPT = 2, 2


def assemblies() -> Path:
    """Return the folder with one assembly for each environment; the first test process to ask makes them."""
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
    """Return a digest of all that decides what is synthesized: files, packages, Node, and variables."""
    whole = hashlib.sha256(repr((sys.version, *_packages(), _node())).encode())
    whole.update(repr(sorted(item for item in environ.items() if item[0].startswith(VARIABLES))).encode())
    for path in inputs(project):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(project).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()[:32]


def inputs(project: Path) -> Iterator[Path]:
    """Yield the files that decide what is synthesized."""
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
    # Both processes need them, and the first build downloads them.
    bundles.dependencies_bundle()
    names = [*ALL, bad_example.NAME]
    started = [_start(work, names[number::PROCESSES], number) for number in range(PROCESSES)]
    for process in started:
        _, errors = process.communicate(timeout=400)
        if process.returncode:
            raise RuntimeError(f"Synthesis failed:\n{errors[-5000:]}")


def _start(work: Path, names: Sequence[str], number: int) -> subprocess.Popen[str]:
    # Its own folder for the files that keep it offline, and for what it read.
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
    """Remove all but the newest: other branches' may be wanted again soon."""
    kept = sorted(cache.glob("assemblies-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in kept[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
