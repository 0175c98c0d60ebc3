"""Servers that the router reaches over TLS as it reaches AWS: Bedrock in its own process, and a table."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from distilled_router.task.task import Task
from local import control
from local.bedrock import BedrockStandIn, MemoryS3, Settings, Tls
from tests.unit.router.doubles import TableDouble
from tests.unit.router.students import deployed_student

# Much longer than anything that is not late, on a busy machine, too.
HANG_SECONDS = 60.0

type Serve = Callable[[socket.socket, int], None]
"""Serves one connection, the number of which it gets."""


def hang(connection: socket.socket) -> None:
    """Keep a connection open and say nothing, until the other side closes it or for HANG_SECONDS."""
    connection.settimeout(HANG_SECONDS)
    while connection.recv(65_536):
        pass


def dribble(connection: socket.socket, seconds: float = 0.1) -> None:
    """Send a byte now and then until the other side closes the connection, or for HANG_SECONDS."""
    for _ in range(int(HANG_SECONDS / seconds)):
        time.sleep(seconds)
        connection.sendall(b"x")


@contextmanager
def server(serve: Serve, tls: Tls | None = None) -> Iterator[str]:
    """Serve each connection in a thread, which gets its number; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def accept() -> None:
            number = 0
            while not over.is_set():
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=(accepted, number), daemon=True).start()
                number += 1

        def run(accepted: socket.socket, number: int) -> None:
            try:
                if tls:
                    accepted = tls.context.wrap_socket(accepted, server_side=True)
                with accepted:
                    serve(accepted, number)
            except OSError:
                pass

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        # Before the next server gets the same file descriptor.
        accepting.join()


@dataclass(frozen=True)
class Served:
    """A stand-in in another process: URL, the students' deployments, what its clients trust, token."""

    url: str
    endpoints: Sequence[str]
    ca_bundle: str
    token: str

    def control(self, method: str, body: object = None) -> None:
        """Change the faults of the stand-in."""
        url = f"{self.url}/_faults"
        control.call(url, self.token, verify=self.ca_bundle, method=method, body=body)


def _serve(connection: Connection, first_token_ms: float) -> None:
    task, settings = Task.load(), Settings(first_token_ms=first_token_ms)
    with BedrockStandIn(s3=MemoryS3(), settings=settings, tls=True) as bedrock:
        endpoints = [deployed_student(bedrock, task, name) for name in ("live", "candidate")]
        connection.send((bedrock.endpoint, endpoints, bedrock.ca_bundle, bedrock.token))
        connection.poll(None)


@contextmanager
def stand_in(first_token_ms: float = 0.0) -> Iterator[Served]:
    """Run the stand-in in another process, with two deployed students."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, first_token_ms), daemon=True
    )
    process.start()
    theirs.close()
    try:
        assert ours.poll(60), "the stand-in did not start"
        yield Served(*ours.recv())
    finally:
        ours.close()
        process.join(10)
        process.terminate()


class TableServer(ThreadingHTTPServer):
    """A table with one item, served over TLS as DynamoDB serves it. `tls` is its certificate."""

    daemon_threads = True

    def __init__(self, table: TableDouble, tls: Tls) -> None:
        """Listen on any free port of loopback."""
        super().__init__(("127.0.0.1", 0), _GetItem)
        self.table, self._tls = table, tls
        self.url = f"https://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection, whose handshake takes place in its own thread."""
        accepted, address = super().get_request()
        context = self._tls.context
        return context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), address

    @contextmanager
    def running(self) -> Iterator[TableServer]:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


class _GetItem(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: TableServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Log nothing."""

    def do_POST(self) -> None:
        """Answer GetItem."""
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps(self.server.table.get_item(**request)).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {len(body)}"
        self.wfile.write(f"{head}\r\n\r\n".encode() + body)
