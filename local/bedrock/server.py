"""The HTTP server: HTTP/1.1 with keep-alive, on loopback only, with TLS like Bedrock's or without."""

from __future__ import annotations

import socket
import ssl
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local.bedrock.application import Application
from local.bedrock.control import Control
from local.bedrock.protocol import Request, Response

LOOPBACK = "127.0.0.1"
_MAX_BYTES = 32_000_000


class Server(ThreadingHTTPServer):
    """The stand-in's server, with one thread per connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(
        self,
        application: Application,
        token: str,
        port: int = 0,
        context: ssl.SSLContext | None = None,
        descriptor: int | None = None,
    ) -> None:
        """Listen on a port, or on the socket that an open file is; with a context, speak TLS.

        `token` is what the control endpoints need.
        """
        super().__init__((LOOPBACK, port), _Handler, bind_and_activate=descriptor is None)
        if descriptor is not None:
            self.socket.close()
            self.socket = socket.socket(fileno=descriptor)
            self.server_address = self.socket.getsockname()
            self.server_activate()
        self._context = context
        self.application = application
        self.control = Control(application, token)

    @property
    def endpoint(self) -> str:
        """The server's URL."""
        scheme = "https" if self._context else "http"
        return f"{scheme}://{LOOPBACK}:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection. The handshake takes place at the first read, in the connection's thread."""
        accepted, address = super().get_request()
        if self._context:
            accepted = self._context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        return accepted, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Report an error, unless the client closed the connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError | ssl.SSLError):
            super().handle_error(request, client_address)  # type: ignore[arg-type] # typeshed's private alias


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server gives it
        """Log nothing: the application records the calls."""

    def _serve(self) -> None:
        request = self._read()
        if request is None:
            self._answer(Response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b""), close=True)
            return
        if request.path.startswith("/_"):
            self._answer(self.server.control.handle(request))
            return
        response = self.server.application.handle(request)
        if response is None:
            self.close_connection = True
        else:
            self._answer(response)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

    def _read(self) -> Request | None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks()
        else:
            length = int(headers.get("content-length", "0"))
            body = self.rfile.read(length) if length <= _MAX_BYTES else None
        return None if body is None else Request(self.command, path, query, headers, body)

    def _read_chunks(self) -> bytes | None:
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            if len(body) + size > _MAX_BYTES:
                return None
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, response: Response, *, close: bool = False) -> None:
        reason = HTTPStatus(response.status).phrase
        lines = [f"HTTP/1.1 {response.status:d} {reason}", f"content-length: {len(response.body)}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if close:
            self.close_connection = True
        if self.close_connection:
            lines.append("connection: close")
        # In one write: a second small packet would wait for the acknowledgement of the first.
        self._write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + response.body, response.pause)

    def _write(self, answer: bytes, pause: float) -> None:
        if not pause:
            self.wfile.write(answer)
            return
        for byte in answer:
            self.wfile.write(bytes([byte]))
            time.sleep(pause)
