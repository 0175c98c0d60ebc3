"""HTTP connections to one service: TLS by a shared context, kept open, with a deadline for each exchange.

Decision 28 says why botocore's are not used.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)

# Lambda freezes an environment between requests. Meanwhile the service, a NAT gateway or a load balancer
# closes idle connections, and an environment that wakes up may not hear of it: the next query would wait on a
# dead connection until its budget ends. TCP's own probes start after two hours.
IDLE_SECONDS = 60.0
# Of a response. Bedrock's and DynamoDB's answers to the router are a few kilobytes.
MOST_BYTES = 1_000_000


def tls_context(ca_bundle: str) -> ssl.SSLContext:
    """Return a context for all connections that trusts the authorities in a file.

    Loading botocore's authorities takes 25 to 50 ms of CPU time. urllib3 does so for each connection
    (https://github.com/urllib3/urllib3/issues/3623, https://github.com/boto/botocore/issues/3171).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_bundle)
    return context


class Answer(NamedTuple):
    """An HTTP response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Connections to the server of one URL, kept open and used again."""

    def __init__(
        self,
        url: str,
        context: Callable[[], ssl.SSLContext],
        *,
        most_idle: int,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open none yet.

        Args:
            url: of the server, without a path.
            context: returns the context for TLS; called if the URL's scheme is https.
            most_idle: idle connections to keep.
            most_bytes: of a response's body; a longer one is an error, and is not read.
            now: the wall clock in seconds. The monotonic clock may stand still in a frozen environment.
        """
        parts = urlsplit(url)
        self.url, self.host = url, parts.netloc
        self._name = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context = context() if parts.scheme == "https" else None
        self._most_idle, self._most_bytes, self._now = most_idle, most_bytes, now
        self._idle: list[tuple[float, _Wire]] = []
        self._lock = threading.Lock()

    def open(self, seconds: float) -> None:
        """Open a connection ahead of the first request. Raises like `request`."""
        self._keep(self._connect(time.monotonic() + seconds))

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> Answer:
        """Send a request and return the response, all within `seconds`, except for the look-up of the name.

        Raises:
            BotoCoreError: There was no whole response: ConnectTimeoutError, ReadTimeoutError,
                EndpointConnectionError, SSLError or ConnectionClosedError.
        """
        ends = time.monotonic() + seconds
        since, wire = self._take() or (None, self._connect(ends))
        wire.ends = ends
        try:
            answer, keep = wire.exchange(method, path, {**headers, "host": self.host}, body, self._most_bytes)
        except BaseException as error:
            wire.close()
            if since is not None:
                # Others that were idle as long are likely to be dead as well.
                self._drop(since)
            if isinstance(error, TimeoutError):
                raise ReadTimeoutError(endpoint_url=self.url) from error
            if isinstance(error, OSError | HTTPException | ValueError):
                raise ConnectionClosedError(endpoint_url=self.url) from error
            raise
        if keep:
            self._keep(wire)
        else:
            wire.close()
        return answer

    def _drop(self, since: float) -> None:
        """Close the connections that have been idle since then or longer."""
        with self._lock:
            dropped = [wire for other, wire in self._idle if other <= since]
            self._idle = [(other, wire) for other, wire in self._idle if other > since]
        for wire in dropped:
            wire.close()

    def _take(self) -> tuple[float, _Wire] | None:
        """Return an idle connection and since when it is idle; close those that may be dead."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since, wire = self._idle.pop()
            # The lower bound closes it if the clock was set back.
            if 0 <= self._now() - since < IDLE_SECONDS and wire.is_open():
                return since, wire
            wire.close()

    def _keep(self, wire: _Wire) -> None:
        with self._lock:
            if len(self._idle) < self._most_idle:
                self._idle.append((self._now(), wire))
                return
        wire.close()

    def _connect(self, ends: float) -> _Wire:
        try:
            found = socket.getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self.url) from error
        problem: Exception | None = None
        for family, kind, protocol, _, address in found:
            # Half of what is left, so that an address that does not answer leaves time for the next one.
            left = (ends - time.monotonic()) / 2
            if left <= 0:
                break
            try:
                return _Wire(self._opened(socket.socket(family, kind, protocol), address, left))
            except OSError as error:
                problem = error
        if isinstance(problem, ssl.SSLError) and not isinstance(problem, TimeoutError):
            raise SSLError(endpoint_url=self.url, error=problem) from problem
        if problem is None or isinstance(problem, TimeoutError):
            raise ConnectTimeoutError(endpoint_url=self.url) from problem
        raise EndpointConnectionError(endpoint_url=self.url) from problem

    def _opened(self, plain: socket.socket, address: Any, seconds: float) -> socket.socket:
        try:
            plain.settimeout(seconds)
            plain.connect(address)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context:
                # A handshake, too, ends after the socket's timeout as a whole.
                return self._context.wrap_socket(plain, server_hostname=self._name)
        except BaseException:
            plain.close()
            raise
        return plain


class _Wire:
    """An open connection. All its operations end at the moment `ends`, however few bytes each brings."""

    def __init__(self, opened: socket.socket) -> None:
        self.ends = 0.0
        self._socket = opened

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, most_bytes: int
    ) -> tuple[Answer, bool]:
        """Send a request; return the response and whether the connection can be used again."""
        head = headers if method == "GET" else {**headers, "content-length": str(len(body))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        self._limit()
        # In one piece: two small ones are two packets.
        self._socket.sendall("\r\n".join(lines).encode("latin-1") + body)
        with HTTPResponse(cast(socket.socket, self), method=method) as response:
            response.begin()
            if (response.length or 0) > most_bytes:
                raise HTTPException("the response is too long")
            content = response.read(most_bytes)
            # A response in chunks has no length; after its last one, http.client has closed it.
            if response.length or (response.chunked and not response.isclosed()):
                raise HTTPException("the response was cut off, or is too long")
            found = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, found, content), not response.will_close

    def is_open(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything unasked."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader of the connection: all that HTTPResponse wants of a socket."""
        return io.BufferedReader(_Reader(self))

    def receive(self, buffer: Any) -> int:
        """Read what has arrived into a buffer; return the number of bytes."""
        self._limit()
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _limit(self) -> None:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


class _Reader(io.RawIOBase):
    """Reads from a connection; closing it leaves the connection open."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has arrived."""
        return self._wire.receive(buffer)
