"""Functions as forks of a process with boto3 in memory: the emulator uses them like any process."""

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
    """Return the emulator's module, which is not on the import path."""
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
    made.connection.close()


@pytest.fixture
def begin(forks: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that starts a worker as the emulator does."""
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


def test_fork_has_its_own_pipes_folder_and_variables_and_the_modules(
    begin: Callable[..., Any], tmp_path: Path
) -> None:
    process = begin()
    process.stdin.write("hello\n")
    assert process.stdout.readline().split() == ["hello", "a", "value", str(tmp_path), "True"]
    assert process.stderr.readline() == "told\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stdout.read() == ""


def test_exit_code_is_reported(begin: Callable[..., Any]) -> None:
    process = begin(code=3)
    process.stdin.write("\n\n")
    assert (process.wait(60), process.poll()) == (3, 3)


@pytest.mark.parametrize(("end", "code"), [("terminate", -signal.SIGTERM), ("kill", -signal.SIGKILL)])
def test_ending_one_fork_does_not_end_another(begin: Callable[..., Any], end: str, code: int) -> None:
    process, other = begin(), begin()
    getattr(process, end)()
    assert process.wait(60) == code
    process.kill()  # no effect after the end
    assert other.poll() is None
    os.kill(other.pid, signal.SIGKILL)
    assert other.wait(60) == -signal.SIGKILL


def test_waiting_for_a_running_fork_times_out(begin: Callable[..., Any]) -> None:
    process = begin()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.kill()
    process.wait(60)


def test_other_processes_start_as_usual(forks: Any) -> None:
    process = forks.Popen([sys.executable, "-c", "print(7)"], stdout=forks.PIPE, text=True)
    assert isinstance(process, subprocess.Popen)
    assert process.communicate()[0] == "7\n"
