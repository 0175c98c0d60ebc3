"""The installer picks a Python that works, by running each."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stacks.settings import PROJECT

type Install = Callable[..., subprocess.CompletedProcess[str]]

OLD = 'case "$1" in -c) exit 1;; esac; echo "Python 3.9.2"'
SHIM = 'echo "command not found" >&2; exit 127'
GOOD = 'case "$1" in -c) exit 0;; --version) echo "Python 3.13.1";; -m) exit 1;; esac'
NAMES = ("python3.13", "python3.12", "python3.14", "python3", "python")


@pytest.fixture
def run(tmp_path: Path) -> Install:
    """Run the installer in a copy of the project, with these commands as the only Pythons."""
    (tmp_path / "local").mkdir()
    script = tmp_path / "local" / "install.sh"
    script.write_text((PROJECT / "local" / "install.sh").read_text())

    def install(**commands: str) -> subprocess.CompletedProcess[str]:
        binaries = tmp_path / "bin"
        binaries.mkdir()
        for name in NAMES:
            file = binaries / name
            file.write_text(f"#!/bin/sh\n{commands.get(name.replace('.', '_'), SHIM)}\n")
            file.chmod(0o755)
        path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["sh", str(script)], capture_output=True, text=True, check=False, env={"PATH": path}
        )

    return install


def test_one_clear_line_when_every_python_is_too_old(run: Install) -> None:
    done = run(python3=OLD, python=OLD)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "needs Python 3.12 or newer; python3 is Python 3.9.2" in done.stderr


def test_one_clear_line_when_there_is_none(run: Install) -> None:
    done = run()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "found none" in done.stderr


def test_a_shim_that_fails_is_passed_over(run: Install) -> None:
    done = run(python3_13=SHIM, python3=GOOD)
    assert "Making .venv with Python 3.13.1" in done.stdout
    assert "can't make virtual environments" in done.stderr
