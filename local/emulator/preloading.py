"""Start the emulator's Python functions as forks of a process that has already imported boto3.

Only for tests: a forked function uses the packages of the forking Python and ignores its layer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

ZYGOTE = Path(__file__).with_name("zygote.py")


class Forked:
    """A forked process with the part of the interface of `subprocess.Popen` that the emulator uses."""

    def __init__(self, pid: int, pipes: tuple[TextIO, TextIO, TextIO], end: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = pipes
        self._end = end

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process and return its exit code; raise subprocess.TimeoutExpired after `timeout`."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("function", timeout or 0)
        return code

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _wait(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], seconds)[0]:
            # An empty read: the forking process has ended without reporting an exit code.
            self.returncode = int(os.read(self._end, 16) or -signal.SIGKILL)
            os.close(self._end)
        return self.returncode


class Preloading:
    """Replaces the emulator's `subprocess` module: forks Python workers, starts other processes as usual."""

    def __init__(self, python: str) -> None:
        """Start the forking process, which ends with the emulator.

        Args:
            python: the interpreter, which must have the functions' packages.
        """
        self._lock = threading.Lock()
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            subprocess.Popen([python, ZYGOTE, str(theirs.fileno())], pass_fds=[theirs.fileno()])  # noqa: S603  # our own program

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of `subprocess`."""
        return getattr(subprocess, name)

    def Popen(self, command: Sequence[str], **more: Any) -> Any:  # noqa: N802 - as in subprocess
        """Start a process; fork it if it is a Python worker."""
        if len(command) == 2 and command[0] == sys.executable and command[1].endswith("_worker.py"):
            return self._fork(command[1], more["cwd"], more["env"])
        return subprocess.Popen(command, **more)  # noqa: S603  # the emulator's own

    def _fork(self, script: str, cwd: str, env: Mapping[str, str]) -> Forked:
        (stdin, to_child), (from_child, stdout), (errors, stderr), (end, ending) = (
            os.pipe() for _ in range(4)
        )
        message = json.dumps({"script": script, "cwd": cwd, "env": dict(env)}).encode()
        theirs = [stdin, stdout, stderr, ending]
        try:
            with self._lock:
                socket.send_fds(self.connection, [message], theirs)
                pid = int(self.connection.recv(16))
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        pipes = (
            os.fdopen(to_child, "w", buffering=1, encoding="utf-8"),
            os.fdopen(from_child, encoding="utf-8"),
            os.fdopen(errors, encoding="utf-8"),
        )
        return Forked(pid, pipes, end)
