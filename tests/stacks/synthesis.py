"""All environments' cloud assemblies, synthesised once a test session.

They are made one after another in one process of its own: the CDK's validators need some ten seconds to start
and one for each further app; and in that process there is neither a network nor a credential.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stacks.settings import PROJECT
from tests.stacks import offline


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """The one folder of a test session, whichever of xdist's workers asks."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def assemblies(folder: Path) -> Path:
    """The folder with one assembly for each environment; of several test processes the first makes them."""
    made, work = folder / "assemblies", folder / "assemblies.work"
    with (folder / "assemblies.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            work.mkdir(exist_ok=True)
            _run(work)
            work.rename(made)
    return made


def _run(work: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.stacks.synthesise_all", str(work)],
        cwd=PROJECT,
        env=offline.environment(work),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if result.returncode:
        raise RuntimeError(f"Synthesis failed:\n{result.stderr[-5000:]}")
