"""Single HTTP requests, without a proxy."""

from __future__ import annotations

from pathlib import Path

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.httpsession import URLLib3Session


def send(request: AWSRequest, *, verify: str | Path | None = None, timeout: float = 5.0) -> AWSResponse:
    """Send a request without any change, and return the response.

    Args:
        request: The request, signed if it has to be.
        verify: File with the certificate authorities to trust; the public ones if there is none.
        timeout: Seconds to connect, and to wait for data.

    Raises:
        botocore.exceptions.BotoCoreError: There was no response.
    """
    trusted = str(verify) if verify else True
    session = URLLib3Session(verify=trusted, timeout=timeout)  # type: ignore[arg-type]  # takes a path as well
    return session.send(request.prepare())


def get(url: str, *, verify: str | Path | None = None, timeout: float = 5.0) -> AWSResponse:
    """Send a GET request; see `send`."""
    return send(AWSRequest("GET", url), verify=verify, timeout=timeout)
