"""End the processes that a test session has left running, however it ended.

A fixture stops its servers when pytest ends normally. A killed pytest runs no fixture: this process reads a
pipe from pytest until it closes, and then ends the rest. It recognizes the session's processes by its
folders: in the value of an environment variable (`TMPDIR`, `LOCAL_DIR`), or in the tag that
`operate.processes.start` puts into a command line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

TAG = "distilled_router="
# Processes that are being started when pytest ends may appear a little later.
LOOKS, PAUSE_SECONDS = 5, 0.1


def start(folders: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Watch this process: when it has ended, end every process of these folders."""
    return subprocess.Popen(
        [sys.executable, "-I", __file__, *map(str, folders)], stdin=subprocess.PIPE, start_new_session=True
    )


def found(folders: Sequence[str]) -> Iterator[int]:
    """Yield the ids of the processes that belong to these folders."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            values = [variable.partition("=")[2] for variable in variables]
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            values += [word.removeprefix(TAG) for word in words if word.startswith(TAG)]
            if any(_is_in(value, folder) for value in values for folder in folders):
                yield int(process.name)


def _is_in(value: str, folder: str) -> bool:
    return value == folder or value.startswith(f"{folder}/")


def end(folders: Sequence[str]) -> None:
    """Kill the processes of these folders, and the process group of each that leads one."""
    for pid in found(folders):
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(LOOKS):
        end(sys.argv[1:])
        time.sleep(PAUSE_SECONDS)
