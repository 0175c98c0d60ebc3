"""Start, recognise and stop background processes that outlive the command which started them."""

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

# Python keeps options that it does not know and does nothing with them: a name tag in the command line, by
# which a recorded process id is told from one that the system has given to somebody else since.
TAG = "distilled_router"


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    log: Path | None,
    *,
    detached: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command without input; its output goes to `log`, or where this command's own goes."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        return subprocess.Popen(  # noqa: S603 - every caller runs a program of this project's own
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=dict(environment),
            cwd=cwd,
            start_new_session=detached,
        )


def output_of(command: Sequence[str]) -> str:
    """Return what a short command prints; nothing when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above
    return done.stdout if done.returncode == 0 else ""


def start(
    arguments: Sequence[str],
    tag: str,
    environment: Mapping[str, str],
    cwd: Path,
    log: Path,
    python: Path = Path(sys.executable),
) -> int:
    """Run `python <arguments>` in a session of its own, so that Ctrl-C in the terminal doesn't reach it."""
    command = [str(python), "-X", f"{TAG}={tag}", *arguments]
    process = spawn(command, environment, cwd, log, detached=True)
    # Right after exec the kernel may show an empty command line for a moment.
    while process.poll() is None and not command_line(process.pid):
        time.sleep(0.001)
    return process.pid


def command_line(pid: int) -> str:
    """Return the command line of a running process; empty when there is none."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        try:
            return proc.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return output_of(["ps", "-o", "command=", "-p", str(pid)]).strip()


def is_ours(pid: int, tag: str) -> bool:
    """Tell whether `pid` is still the process that was started with `tag`."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # our own dead child stays listed until somebody asks
    return f"{TAG}={tag} " in command_line(pid) + " "


def stop(pid: int, tag: str, seconds: float = 3.0) -> bool:
    """Stop a process that we started, and its children; False when it is not ours or no longer there.

    The emulator ignores SIGTERM while a custom resource is pending, hence the second signal.
    """
    if not is_ours(pid, tag):
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while is_ours(pid, tag) and time.monotonic() < deadline:
        time.sleep(0.05)
    # It led a session of its own, so this group holds its children only (Lambda workers) and nobody else.
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
