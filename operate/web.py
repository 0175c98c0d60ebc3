"""One HTTP request, past any proxy: everything of the local system is on loopback."""

from __future__ import annotations

from pathlib import Path

from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.httpsession import URLLib3Session


def send(request: AWSRequest, *, verify: str | Path | None = None, timeout: float = 5.0) -> AWSResponse:
    """Send a request as it is.

    Args:
        verify: File with the authorities to trust; the public ones when there is none.

    Raises:
        botocore.exceptions.BotoCoreError: No answer came.
    """
    trusted = str(verify) if verify else True
    session = URLLib3Session(verify=trusted, timeout=timeout)  # type: ignore[arg-type]  # takes a path as well
    return session.send(request.prepare())


def get(url: str, *, verify: str | Path | None = None, timeout: float = 5.0) -> AWSResponse:
    """Get a URL; see `send`."""
    return send(AWSRequest("GET", url), verify=verify, timeout=timeout)
