"""Start, recognize and stop background processes that outlive the command that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

# Python ignores -X options that it doesn't know. This one marks our processes, so that a recorded process id
# that the system has given to another process since is not mistaken for ours.
TAG = "distilled_router"


def listener() -> socket.socket:
    """Return a socket that listens on a free port of the loopback interface, for a server to inherit.

    A port that the server itself binds later could be somebody else's by then.
    """
    found = socket.create_server(("127.0.0.1", 0))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    log: Path | None,
    *,
    detached: bool = False,
    inherited: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command without input; its output goes to `log`, or to this process's output.

    It inherits the open files of these numbers.
    """
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(_private(log)) if log else None
        return subprocess.Popen(  # noqa: S603 - all callers run programs of this project
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=dict(environment),
            cwd=cwd,
            start_new_session=detached,
            pass_fds=inherited,
        )


def _private(log: Path) -> BinaryIO:
    """Open a file for writing that only its owner can read, whatever its mode was."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(file, 0o600)
    return os.fdopen(file, "wb")


def output_of(command: Sequence[str]) -> str:
    """Return the output of a short command; empty if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above
    return done.stdout if done.returncode == 0 else ""


def start(
    arguments: Sequence[str],
    tag: str,
    environment: Mapping[str, str],
    cwd: Path,
    log: Path,
    python: Path = Path(sys.executable),
    inherited: Sequence[int] = (),
) -> int:
    """Start `python <arguments>` in its own session, which Ctrl-C doesn't reach; return the process id.

    It inherits the open files of these numbers.
    """
    command = [str(python), "-X", f"{TAG}={tag}", *arguments]
    process = spawn(command, environment, cwd, log, detached=True, inherited=inherited)
    # Right after exec the command line may be empty for a moment.
    while process.poll() is None and not command_line(process.pid):
        time.sleep(0.001)
    return process.pid


def command_line(pid: int) -> str:
    """Return the command line of a process; empty if it doesn't run."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        try:
            return proc.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return output_of(["ps", "-o", "command=", "-p", str(pid)]).strip()


def is_ours(pid: int, tag: str) -> bool:
    """Tell whether a process is the one that was started with `tag`."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # a dead child stays listed until its parent waits for it
    return f"{TAG}={tag} " in command_line(pid) + " "


def stop(pid: int, tag: str, seconds: float = 3.0) -> bool:
    """Stop a process that was started with `tag`, and its children; return False if there is none.

    The emulator ignores SIGTERM while a custom resource is pending, so SIGKILL follows.
    """
    if not is_ours(pid, tag):
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while is_ours(pid, tag) and time.monotonic() < deadline:
        time.sleep(0.05)
    # It had its own session, so this group holds only its children, the functions.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    while is_ours(pid, tag):
        time.sleep(0.05)
    return True


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
