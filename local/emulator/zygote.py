"""A process that imports the functions' common modules once and forks a process for each function.

Importing boto3 takes half a second of CPU time, most of the duration of a test. The emulator requests a
function over a socket and passes its pipes along; see `preloading`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODULES = (
    "boto3.dynamodb.types",
    "botocore.config",
    "aws_lambda_powertools",
    "aws_lambda_powertools.metrics",
    "concurrent.futures.thread",
    "tomllib",
    "unicodedata",
)
# Services that the functions call.
SERVICES = ("bedrock", "bedrock-runtime", "cloudwatch", "dynamodb", "s3", "sns", "stepfunctions")
# File descriptors that come with a request: stdin, stdout, stderr, and the pipe for the exit code.
PIPES = 4
LARGEST = 1 << 20


def main(connection: socket.socket) -> None:
    """Fork on request until the emulator closes the socket."""
    for name in MODULES:
        importlib.import_module(name)
    _keep_service_models()
    gc.freeze()
    woken, waking = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waking, False)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ends: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([connection.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(ends)
        if connection.fileno() in ready:
            message, pipes, _, _ = socket.recv_fds(connection, LARGEST, PIPES)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for inherited in (connection.fileno(), woken, waking, *ends.values(), pipes[3]):
                    os.close(inherited)
                _become(json.loads(message), pipes[:3])
            ends[pid] = pipes[3]
            for pipe in pipes[:3]:
                os.close(pipe)
            connection.send(str(pid).encode())


def _keep_service_models() -> None:
    """Read botocore's files once; each function's clients then find them in memory."""
    import boto3
    from botocore.loaders import JSONFileLoader, Loader

    for kind, name in ((JSONFileLoader, "load_file"), (Loader, "list_available_services")):
        setattr(kind, name, _once(getattr(kind, name)))
    session = boto3.Session("nobody", "nothing", region_name="us-east-1")
    for service in SERVICES:
        session.client(service)  # type: ignore[call-overload]  # any service's name
    session.resource("dynamodb")


def _once(method: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Return a method whose result for an argument is the same for all instances."""
    results: dict[str, Any] = {}

    def call(instance: Any, argument: str) -> Any:
        if argument not in results:
            results[argument] = method(instance, argument)
        return results[argument]

    return call


def _reap(ends: dict[int, int]) -> None:
    """Report the exit code of each function that has ended, as `subprocess` encodes it."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            end = ends.pop(pid)
            with contextlib.suppress(OSError):  # the emulator may have closed its end
                os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(end)


def _become(function: dict[str, Any], pipes: list[int]) -> None:
    """Run a worker's script as a new interpreter would, and exit."""
    code = 1
    try:
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
            os.close(pipe)
        sys.stdin = os.fdopen(0, encoding="utf-8")
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8")
        os.chdir(function["cwd"])
        os.environ.clear()
        os.environ.update(function["env"])
        script = Path(function["script"])
        sys.argv, sys.path[0] = [str(script)], str(script.parent)
        exec(compile(script.read_text(encoding="utf-8"), script, "exec"), {"__name__": "__main__"})  # noqa: S102  # the emulator's own script
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as emulator:
        main(emulator)
