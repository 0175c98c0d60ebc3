"""A pytest that is killed leaves no server behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stacks.settings import PROJECT
from tests import watchdog

SLEEPS = """
import os, subprocess, sys, time
from pathlib import Path

def test_waits(tmp_path_factory, {fixture}):
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    own = subprocess.Popen(command, env={{**os.environ, "TMPDIR": str(folder)}}, start_new_session=True)
    Path({ready!r}).write_text(str(own.pid))
    time.sleep(60)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are told apart by /proc")
def test_killed_session_leaves_no_process_behind(tmp_path: Path) -> None:
    ready, base = tmp_path / "ready", tmp_path / "base"
    (tmp_path / "test_sleeps.py").write_text(SLEEPS.format(fixture="emulator", ready=str(ready)))
    options = [
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        f"--basetemp={base}",
        f"--rootdir={tmp_path}",
    ]
    session = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", *options, str(tmp_path / "test_sleeps.py")],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'lambda'}", "PYTEST_ADDOPTS": ""},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: ready.exists() and ready.read_text() != "")
        started = set(watchdog.found([str(base)]))
        assert len(started) >= 2, "the emulator, and the test's own process"
    finally:
        session.send_signal(signal.SIGKILL)
        session.wait()
    wait_until(lambda: not any(map(is_running, started)))


def test_processes_of_other_folders_are_left_alone(tmp_path: Path) -> None:
    mine, other = tmp_path / "a", tmp_path / "ab"
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(other)}) as stranger:
        try:
            watchdog.end([str(mine)])
            assert stranger.poll() is None
        finally:
            stranger.kill()
