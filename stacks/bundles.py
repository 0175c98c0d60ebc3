"""What travels to Lambda: a function's own folder with what all functions share, and their dependencies.

Bundles are plain folders under `.cache/`, named by their content, so that a second synthesis copies and
installs nothing, and two at once don't disturb each other. Everything is pure Python: they build anywhere.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from shared.task import FILES, ROBUSTNESS_FILE

PROJECT = Path(__file__).resolve().parents[1]
LAMBDA = PROJECT / "lambda"
REQUIREMENTS = LAMBDA / "requirements.txt"

# botocore carries the models of some 400 services; a function needs these. The files beside the folders
# (endpoints, partitions, retry rules) are kept.
SERVICES = (
    "bedrock",
    "bedrock-runtime",
    "cloudwatch",
    "dynamodb",
    "s3",
    "sns",
    "stepfunctions",
    "sts",
)


def function_bundle(folder: str, task: Path | None = None) -> Path:
    """The code of one function: `<folder>/`, `shared/` and `task/`, ready to become an asset; with them what
    the folder's own requirements.txt names, if it has one.

    `task` is the routing task's folder, by default the project's own. What else lies in it, such as a data
    set, stays here.
    """
    parts = {folder: LAMBDA / folder, "shared": LAMBDA / "shared"}
    files = {
        f"{name}/{path.relative_to(root).as_posix()}": path
        for name, root in parts.items()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    routed = task or PROJECT / "task"
    files |= {f"task/{name}": routed / name for name in sorted(FILES)}
    if folder == "evaluation" and (routed / ROBUSTNESS_FILE).exists():
        files[f"task/{ROBUSTNESS_FILE}"] = routed / ROBUSTNESS_FILE
    digest = _digest(f"{name}\0".encode() + path.read_bytes() for name, path in files.items())

    def build(target: Path) -> None:
        for name, path in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
        if (own := LAMBDA / folder / REQUIREMENTS.name).exists():
            _install(own, target)
            # Who installed it when: of no use there, and different on each machine.
            for extra in target.glob("*.dist-info"):
                shutil.rmtree(extra)

    return _built(f"function-{folder}-{digest}", build)


def dependencies_bundle() -> Path:
    """The layer with lambda/requirements.txt under `python/`, botocore reduced to the services we call."""
    digest = _digest([REQUIREMENTS.read_bytes(), repr(SERVICES).encode()])

    def build(target: Path) -> None:
        python = target / "python"
        _install(REQUIREMENTS, python)
        for extra in python.rglob("examples-1.json*"):
            extra.unlink()
        for service in (python / "botocore" / "data").iterdir():
            if service.is_dir() and service.name not in SERVICES:
                shutil.rmtree(service)
        for service in (python / "boto3" / "data").iterdir():
            if service.is_dir() and service.name not in SERVICES:
                shutil.rmtree(service)

    return _built(f"dependencies-{digest}", build)


def dependencies_hash() -> str:
    """The layer's asset hash: by what was asked for, since pip's output differs between machines."""
    return _digest([REQUIREMENTS.read_bytes(), repr(SERVICES).encode()])


def _install(requirements: Path, target: Path) -> None:
    """Install into a folder, without commands and compiled files."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--disable-pip-version-check",
    ]
    subprocess.run([*command, "--target", str(target), "-r", str(requirements)], check=True)  # noqa: S603  # our own command
    for extra in (target / "bin", *target.rglob("__pycache__")):
        shutil.rmtree(extra, ignore_errors=True)


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:32]


def _built(name: str, build: Callable[[Path], None]) -> Path:
    """The finished folder of that name. It is filled aside and renamed, so it is never seen half done."""
    cache = PROJECT / ".cache"
    finished = cache / name
    if finished.exists():
        return finished
    cache.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    try:
        build(work)
        work.chmod(0o755)
        try:
            work.rename(finished)
        except OSError:
            if not finished.exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return finished
