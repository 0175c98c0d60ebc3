"""Start the emulator's Python functions as forks of a process that has already imported boto3.

For tests: such a function uses the packages of the Python that forks it, whatever its layer holds.
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
    """A function's process, as far as the emulator looks at one of `subprocess`."""

    def __init__(self, pid: int, pipes: tuple[TextIO, TextIO, TextIO], end: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = pipes
        self._end = end

    def poll(self) -> int | None:
        """How it ended, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("function", timeout or 0)
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], seconds)[0]:
            # Nothing to read: whoever would tell is gone.
            self.returncode = int(os.read(self._end, 16) or -signal.SIGKILL)
            os.close(self._end)
        return self.returncode


class Preloading:
    """Stands in for the emulator's `subprocess`: Python workers are forked, all else begins as ever."""

    def __init__(self, python: str) -> None:
        """Start the process that forks with `python`, which has the functions' packages; it ends with the
        emulator.
        """
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            subprocess.Popen([python, ZYGOTE, str(theirs.fileno())], pass_fds=[theirs.fileno()])  # noqa: S603  # our own program

    def __getattr__(self, name: str) -> Any:
        """All else of `subprocess`."""
        return getattr(subprocess, name)

    def Popen(self, command: Sequence[str], **more: Any) -> Any:  # noqa: N802 - as in subprocess
        """Begin a process; a Python worker is a fork."""
        if len(command) == 2 and command[0] == sys.executable and command[1].endswith("_worker.py"):
            return self._fork(command[1], more["cwd"], more["env"])
        return subprocess.Popen(command, **more)  # noqa: S603  # the emulator's own

    def _fork(self, script: str, cwd: str, env: Mapping[str, str]) -> Forked:
        (stdin, to_it), (from_it, stdout), (errors, stderr), (end, ending) = (os.pipe() for _ in range(4))
        message = json.dumps({"script": script, "cwd": cwd, "env": dict(env)}).encode()
        theirs = [stdin, stdout, stderr, ending]
        try:
            with self._lock:
                socket.send_fds(self._connection, [message], theirs)
                pid = int(self._connection.recv(16))
        finally:
            for given in theirs:
                os.close(given)
        pipes = (
            os.fdopen(to_it, "w", buffering=1, encoding="utf-8"),
            os.fdopen(from_it, encoding="utf-8"),
            os.fdopen(errors, encoding="utf-8"),
        )
        return Forked(pid, pipes, end)
