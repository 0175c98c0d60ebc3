"""Only processes that we started are ever stopped."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from operate import processes

SLEEP = ["-c", "import time; time.sleep(60)"]
STUBBORN = [
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[int]:
    pid = processes.start(SLEEP, "tag/emulator", os.environ, tmp_path, tmp_path / "log")
    yield pid
    processes.stop(pid, "tag/emulator", seconds=1)


def test_a_started_process_is_recognised_by_its_tag_only(sleeper: int) -> None:
    assert processes.is_ours(sleeper, "tag/emulator")
    assert not processes.is_ours(sleeper, "tag/emul")
    assert not processes.is_ours(sleeper, "another/emulator")


def test_a_recycled_process_id_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, *SLEEP]) as stranger:
        assert not processes.stop(stranger.pid, "tag/emulator")
        assert stranger.poll() is None
        stranger.kill()


def test_stop_ends_it_and_says_so_once(sleeper: int) -> None:
    assert processes.stop(sleeper, "tag/emulator")
    assert not processes.is_ours(sleeper, "tag/emulator")
    assert not processes.stop(sleeper, "tag/emulator")


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = processes.start(STUBBORN, "tag", os.environ, tmp_path, log)
    while "ready" not in log.read_text():
        time.sleep(0.01)
    assert processes.stop(pid, "tag", seconds=0.2)
    assert not processes.is_ours(pid, "tag")


def test_children_end_with_it(tmp_path: Path) -> None:
    child = f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {SLEEP[1]!r}])"
    log = tmp_path / "log"
    pid = processes.start(
        ["-c", f"{child}; print(p.pid, flush=True); time.sleep(60)"], "tag", os.environ, tmp_path, log
    )
    while not log.read_text().strip():
        time.sleep(0.01)
    grandchild = int(log.read_text())
    assert processes.command_line(grandchild)
    processes.stop(pid, "tag", seconds=1)
    deadline = time.monotonic() + 60
    while processes.command_line(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes.command_line(grandchild)


def test_a_process_id_that_nobody_has_is_not_ours() -> None:
    assert not processes.is_ours(2**22 + 1, "tag")


def test_tail_shows_the_end_and_survives_a_missing_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(map(str, range(100))))
    assert processes.tail(log, 2) == "98\n99"
    assert processes.tail(tmp_path / "none") == ""


def test_a_process_serves_on_a_port_that_nobody_else_can_take_before(tmp_path: Path) -> None:
    serve = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.accept()[0].sendall(b'hello')"
    with processes.listener() as own:
        address, number = own.getsockname(), str(own.fileno())
        with pytest.raises(OSError, match="in use"):
            socket.create_server(address)
        pid = processes.start(
            ["-c", serve, number], "tag", os.environ, tmp_path, tmp_path / "log", inherited=[own.fileno()]
        )
    try:
        with socket.create_connection(address, timeout=60) as client:
            assert client.recv(5) == b"hello"
    finally:
        processes.stop(pid, "tag")
