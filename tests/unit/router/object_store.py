"""S3 as a client of GetObject sees it, over real connections, with all that may go wrong on them."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

from local.bedrock import Tls
from router.services import S3
from tests.unit.router import servers
from tests.unit.router.servers import hang, server

BUCKET = "data-000000000000"
PIECE = 16_384

type Send = Callable[[socket.socket, bytes], None]
"""Sends a response with an object, or what comes in its place."""


def whole(connection: socket.socket, content: bytes) -> None:
    """Answer as S3 does."""
    connection.sendall(_head("200 OK", f"content-length: {len(content)}") + content)


def in_pieces(connection: socket.socket, content: bytes) -> None:
    """Answer in small packets."""
    response = _head("200 OK", f"content-length: {len(content)}") + content
    for start in range(0, len(response), 997):
        connection.sendall(response[start : start + 997])
        time.sleep(0.0002)


def chunked(connection: socket.socket, content: bytes) -> None:
    """Answer without a length, as a proxy does."""
    connection.sendall(_head("200 OK", "transfer-encoding: chunked"))
    for start in range(0, len(content), PIECE):
        part = content[start : start + PIECE]
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
    connection.sendall(b"0\r\n\r\n")


def chunks_cut_off(connection: socket.socket, content: bytes) -> None:
    """End between two chunks."""
    connection.sendall(_head("200 OK", "transfer-encoding: chunked"))
    connection.sendall(b"%x\r\n%b\r\n" % (len(content) // 2, content[: len(content) // 2]))


def cut_off(connection: socket.socket, content: bytes) -> None:
    """Close the connection in the middle."""
    connection.sendall(_head("200 OK", f"content-length: {len(content)}") + content[: len(content) // 2])


def reset(connection: socket.socket, content: bytes) -> None:
    """Reset the connection in the middle."""
    cut_off(connection, content)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def too_short_a_length(connection: socket.socket, content: bytes) -> None:
    """Say that there are fewer bytes than there are."""
    connection.sendall(_head("200 OK", f"content-length: {len(content) // 2}") + content)


def flipped(connection: socket.socket, content: bytes) -> None:
    """Change one bit."""
    middle = len(content) // 2
    whole(connection, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


def page(connection: socket.socket, _: bytes) -> None:
    """Answer with a page of a proxy."""
    whole(connection, b"<html><body>Sign in</body></html>")


def nothing(connection: socket.socket, _: bytes) -> None:
    """Answer with an empty object."""
    whole(connection, b"")


def no_http(connection: socket.socket, _: bytes) -> None:
    """Speak another protocol."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def closed(_: socket.socket, __: bytes) -> None:
    """Close the connection without an answer."""


def silent(connection: socket.socket, _: bytes) -> None:
    """Take the request and say nothing."""
    hang(connection)


def dribble(connection: socket.socket, content: bytes) -> None:
    """Send a byte now and then, for longer than anyone waits."""
    connection.sendall(_head("200 OK", f"content-length: {len(content)}"))
    servers.dribble(connection)


def endless(connection: socket.socket, _: bytes) -> None:
    """Say that there are 50 MB, and send none."""
    connection.sendall(_head("200 OK", "content-length: 50000000"))
    hang(connection)


def huge(connection: socket.socket, _: bytes) -> None:
    """Send 50 MB."""
    connection.sendall(_head("200 OK", "content-length: 50000000"))
    for _part in range(50):
        connection.sendall(bytes(1_000_000))


def huge_in_chunks(connection: socket.socket, _: bytes) -> None:
    """Send 50 MB without a length."""
    connection.sendall(_head("200 OK", "transfer-encoding: chunked"))
    for _part in range(50):
        connection.sendall(b"%x\r\n%b\r\n" % (1_000_000, bytes(1_000_000)))
    connection.sendall(b"0\r\n\r\n")


def refused(status: str, code: str, message: str = "said by a double", *headers: str) -> Send:
    """Return an error or a redirect of S3."""

    def send(connection: socket.socket, _: bytes) -> None:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message>"
            "<RequestId>4442587FB7D0A2F9</RequestId><HostId>host</HostId></Error>"
        )
        fields = ("content-type: application/xml", f"content-length: {len(body)}", *headers)
        connection.sendall(_head(status, *fields) + body.encode())

    return send


def _head(status: str, *headers: str) -> bytes:
    fields = ("x-amz-id-2: id", "x-amz-request-id: 4442587FB7D0A2F9", "server: AmazonS3", *headers)
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


@dataclass
class ObjectStore:
    """Objects in a bucket by key, how they are sent, and what was asked.

    `sends` has the keys that are not sent as S3 does.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    sends: dict[str, Send] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    # The most requests of one key at the same time.
    together: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    url: str = ""
    _now: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self, tls: Tls | None = None) -> Iterator[ObjectStore]:
        """Serve in threads."""
        with server(self._serve, tls) as self.url:
            yield self

    def client(self, seconds: float = 30.0, **variables: str) -> S3:
        """Return the router's client of this store; a busy machine has the time that it needs."""
        return S3.of_bucket(BUCKET, {**self.variables(), **variables}, seconds=seconds)

    def variables(self) -> Mapping[str, str]:
        """Return the variables that Lambda sets, with S3 here."""
        return {
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL_S3": self.url,
        }

    def _serve(self, connection: socket.socket, number: int) -> None:
        self.connections = number + 1
        with connection.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _version = line.decode().split(" ")
                while stream.readline().strip():
                    pass
                assert method == "GET"
                self._answer(connection, unquote(path).removeprefix(f"/{BUCKET}/"))

    def _answer(self, connection: socket.socket, key: str) -> None:
        with self._lock:
            self.requests.append(key)
            self._now[key] += 1
            self.together[key] = max(self.together[key], self._now[key])
        try:
            content = self.objects.get(key)
            missing = refused("404 Not Found", "NoSuchKey", "The specified key does not exist.")
            send = self.sends.get(key, whole) if content is not None else missing
            send(connection, content or b"")
            if send not in (whole, in_pieces, chunked):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
        finally:
            with self._lock:
                self._now[key] -= 1
