"""Pass a boto3 client's requests to the application directly, without HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError

from local.bedrock.application import Application
from local.bedrock.protocol import Request


def attach(client: Any, application: Application) -> None:
    """Let an application answer all requests of a client.

    The client still validates, signs, retries and parses. Only HTTP is left out, so timeouts have no effect.
    """

    def send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        response = application.handle(_read(request))
        if response is None:
            raise ConnectionClosedError(endpoint_url=request.url)
        headers = HTTPHeaders()
        for name, value in response.headers.items():
            headers[name] = value
        return AWSResponse(request.url, response.status, headers, _Body(response.body))

    client.meta.events.register_first("before-send", send)


def _read(request: AWSPreparedRequest) -> Request:
    url = urlsplit(request.url)
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    body: Any = request.body or b""
    content = body.encode() if isinstance(body, str) else bytes(body)
    return Request(request.method or "GET", url.path, url.query, headers, content)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Body(io.BytesIO):
    """A response body with the interface of urllib3's."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        """Yield the whole body at once."""
        yield self.read()
