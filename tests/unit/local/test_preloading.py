"""Functions that are forks of a process which has boto3 in its memory: to the emulator, processes as ever."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stacks.settings import PROJECT

SCRIPT = """
import os, sys
print(sys.stdin.readline().strip(), os.environ["GIVEN"], os.getcwd(), "boto3" in sys.modules, flush=True)
print("told", file=sys.stderr, flush=True)
sys.stdin.readline()
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The emulator's own module, which is on no path here."""
    spec = importlib.util.spec_from_file_location(
        "preloading", PROJECT / "local" / "emulator" / "preloading.py"
    )
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def forks(module: ModuleType) -> Iterator[Any]:
    made = module.Preloading(sys.executable)
    yield made
    made._connection.close()


@pytest.fixture
def begin(forks: Any, tmp_path: Path) -> Callable[..., Any]:
    """Begin a worker as the emulator does."""
    script = tmp_path / "_worker.py"
    script.write_text(SCRIPT)

    def begun(code: int = 0) -> Any:
        env = {"GIVEN": "a value", "CODE": str(code)}
        pipe = subprocess.PIPE
        return forks.Popen(
            [sys.executable, str(script)],
            cwd=str(tmp_path),
            env=env,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            bufsize=1,
        )

    return begun


def test_it_has_its_own_pipes_folder_and_variables_and_the_modules(
    begin: Callable[..., Any], tmp_path: Path
) -> None:
    process = begin()
    process.stdin.write("hello\n")
    assert process.stdout.readline().split() == ["hello", "a", "value", str(tmp_path), "True"]
    assert process.stderr.readline() == "told\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(10) == 0
    assert process.stdout.read() == ""


def test_how_it_ended_is_told(begin: Callable[..., Any]) -> None:
    process = begin(code=3)
    process.stdin.write("\n\n")
    assert (process.wait(10), process.poll()) == (3, 3)


@pytest.mark.parametrize(("end", "code"), [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)])
def test_it_can_be_ended_alone(begin: Callable[..., Any], end: str, code: int) -> None:
    process, other = begin(), begin()
    getattr(process, end)()
    assert process.wait(10) == code
    process.kill()  # of one that has ended, nothing
    assert other.poll() is None
    os.kill(other.pid, signal.SIGKILL)
    assert other.wait(10) == -signal.SIGKILL


def test_one_that_runs_is_waited_for_no_longer_than_is_asked(begin: Callable[..., Any]) -> None:
    process = begin()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.kill()
    process.wait(10)


def test_all_else_begins_as_ever(forks: Any) -> None:
    process = forks.Popen([sys.executable, "-c", "print(7)"], stdout=forks.PIPE, text=True)
    assert isinstance(process, subprocess.Popen)
    assert process.communicate()[0] == "7\n"
