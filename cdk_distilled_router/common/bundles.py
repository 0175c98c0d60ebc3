"""Build the code bundles of Lambda functions and their layer.

A function's bundle has the modules that its handler imports, from its own folder and from `distilled_router`.
The layer has their dependencies.

Bundles are folders under `.cache/`, named by the digest of their input: a second synthesis builds nothing,
and parallel ones don't disturb each other. The same input gives the same bytes, names and modes on any
machine, because dependencies are pure Python and locked by their hashes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cdk_distilled_router.common import imports, packages
from distilled_router.links import inside
from distilled_router.task.task import DEFER_FILE, FILES, ROBUSTNESS_FILE

_PACKAGE = Path(__file__).resolve().parents[1]
_PROJECT = _PACKAGE.parent
# A wheel has lambda/ inside the package, a checkout has it beside the package.
_IN_WHEEL = (_PACKAGE / "lambda").is_dir()
LAMBDA = (_PACKAGE if _IN_WHEEL else _PROJECT) / "lambda"
REQUIREMENTS = LAMBDA / "requirements.txt"
# The routing task of a checkout; a wheel has none.
TASK = _PROJECT / "task"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of all bundles: in the checkout, or in the user's cache for an installed wheel."""
    if not _IN_WHEEL:
        return _PROJECT / ".cache"
    home = environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "cdk-distilled-router"


CACHE = cache_folder()

# botocore has the models of some 400 services; the functions need these. The files beside their folders
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

# The layer keeps only the modules of it that the functions import, a quarter. Other packages import modules
# by names computed at run time (boto3's resources, s3transfer, six) and stay whole.
REDUCED = "aws_lambda_powertools"

# The functions' Python. Lambda can't store compiled code, so each cold start would compile all of botocore
# again; code compiled here by the same version starts in less than half the time.
RUNTIME = (3, 13)
COMPILED = "__pycache__"

# Files in which pip and uv record an installation. Licences are kept.
RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def function_bundle(folder: str, task: Path | None = None) -> Path:
    """Return the folder with the code of one function.

    It has the modules of `<folder>/` and `distilled_router/` that the handler imports, the data files that
    they name, `task/` if they read it, and the packages of the folder's own requirements.txt, if any.

    Args:
        task: the routing task's folder, by default the checkout's. Other files in it, such as a data set, are
            not bundled.

    Raises:
        FileNotFoundError: the folder has no handler, or there is no routing task.
        PermissionError: a link in the task's folder leads out of it.
    """
    files = {path.relative_to(LAMBDA).as_posix(): path for path in _code(folder)}
    if "distilled_router/task/task.py" in files:
        routed = _task(task)
        files |= {f"task/{name}": inside(routed, name) for name in FILES}
        if folder == "evaluation":
            optional = [name for name in (ROBUSTNESS_FILE, DEFER_FILE) if (routed / name).exists()]
            files |= {f"task/{name}": inside(routed, name) for name in optional}
    own = LAMBDA / folder / REQUIREMENTS.name
    parts = [f"{name}\0".encode() + files[name].read_bytes() for name in sorted(files)]

    def build(target: Path) -> None:
        for name, path in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
        if own.exists():
            _install(own, target)
        _compile(target, "/var/task")

    return _built(f"function-{folder}", [*parts, own.read_bytes() if own.exists() else b""], build)


def _task(folder: Path | None) -> Path:
    """Return the routing task's folder, and raise FileNotFoundError if it is incomplete."""
    routed = folder or TASK
    missing = [name for name in FILES if not (routed / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"No routing task: {routed} has no {' and no '.join(missing)}. Call "
            "cdk_distilled_router.use_task(scope, folder), with a folder that has "
            f"{', '.join(FILES)}, before the first construct. docs/resources.md has an example."
        )
    return routed


def _code(folder: str) -> frozenset[Path]:
    """Return the modules that a folder's handler imports, and the data files beside them that they name."""
    handler = f"{folder}.handler"
    if imports.module_file(handler, LAMBDA) is None:
        raise FileNotFoundError(f"{LAMBDA / folder / 'handler.py'}: a function's folder needs a handler.py")
    modules = imports.imported([handler], LAMBDA).files
    texts = {path: path.read_text(encoding="utf-8") for path in modules}
    data = {
        file
        for place in {path.parent for path in modules}
        for file in place.iterdir()
        if file.is_file() and file.suffix != ".py"
        if any(f'"{file.name}"' in text for path, text in texts.items() if path.parent == place)
    }
    return modules | data


def dependencies_bundle() -> Path:
    """Return the folder of the layer, with the packages of lambda/requirements.txt under `python/`.

    It has botocore's models only for SERVICES, and only the modules of Powertools that the functions import.
    """
    handlers = sorted(f"{path.parent.name}.handler" for path in LAMBDA.glob("*/handler.py"))
    needed = sorted(
        name for name in imports.imported(handlers, LAMBDA).elsewhere if name.partition(".")[0] == REDUCED
    )

    def build(target: Path) -> None:
        python = target / "python"
        _install(REQUIREMENTS, python)
        for extra in python.rglob("examples-1.json*"):
            extra.unlink()
        for home in (python / "botocore" / "data", python / "boto3" / "data"):
            for service in home.iterdir():
                if service.is_dir() and service.name not in SERVICES:
                    shutil.rmtree(service)
        _reduce(python, needed)
        _compile(target, "/opt")

    return _built("dependencies", [REQUIREMENTS.read_bytes(), repr((SERVICES, needed)).encode()], build)


def _reduce(python: Path, needed: Iterable[str]) -> None:
    """Delete all modules of REDUCED that the `needed` modules don't import."""
    kept = imports.imported(needed, python).files
    for path in sorted((python / REDUCED).rglob("*"), reverse=True):
        if path.is_file() and path not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def is_compiled() -> bool:
    """Return whether bundles include compiled code: only if this Python has the functions' version.

    Without it, functions work as well, but start later.
    """
    return sys.version_info[:2] == RUNTIME


def _compile(folder: Path, home: str) -> None:
    """Compile all modules; tracebacks show their paths in Lambda, under `home`."""
    if not is_compiled():
        return
    command = [
        *(sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(folder), "-p", home, str(folder)),
    ]
    # A fixed seed: compiled code has constant sets in the order of their hashes.
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S603  # our own command


def _install(requirements: Path, target: Path) -> None:
    """Install a lock file's packages into a folder, without commands and compiled files."""
    packages.install(requirements, target)
    (target / ".lock").unlink(missing_ok=True)  # uv's
    for extra in (target / "bin", *target.rglob(COMPILED)):
        shutil.rmtree(extra, ignore_errors=True)
    for record in (record for about in target.glob("*.dist-info") for record in about.iterdir()):
        if record.name in RECORDS:
            record.unlink()


def _built(name: str, parts: Iterable[bytes], build: Callable[[Path], None]) -> Path:
    """Return the finished folder; build it if it doesn't exist.

    Its name ends in the digest of its input and of the code that builds it. It is built under another name
    and renamed, so that no other process sees it half finished.
    """
    whole = hashlib.sha256()
    sources = (Path(file).read_bytes() for file in (__file__, imports.__file__, packages.__file__))
    how = (*sources, str(is_compiled()).encode())
    for part in (*how, *parts):
        whole.update(hashlib.sha256(part).digest())
    finished = CACHE / f"{name}-{whole.hexdigest()[:32]}"
    if finished.exists():
        return finished
    CACHE.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="building-", dir=CACHE))
    try:
        build(work)
        _open(work)
        try:
            work.rename(finished)
        except OSError:
            if not finished.exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return finished


def _open(folder: Path) -> None:
    """Make all files readable for Lambda's user: the archive has their modes, which depend on the umask."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
