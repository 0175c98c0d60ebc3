"""Requests to the control paths of the emulator and the Bedrock stand-in, with the token that they need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from botocore.awsrequest import AWSRequest

from local.keys import HEADER
from operate import web

# A reset of the emulator waits for running requests.
SECONDS = 120.0


class ControlError(Exception):
    """A server refused a request to a control path; the text says what it answered."""


def call(
    url: str, token: str, *, verify: str | Path | None = None, method: str = "GET", body: Any = None
) -> Any:
    """Call a control path and return its answer; None if the answer is empty.

    Args:
        url: The server's URL and the path.
        token: `Keys.token` of the start, or `BedrockStandIn.token`.
        verify: File with the certificate authorities to trust; the public ones if there is none.
        method: The HTTP method.
        body: Sent as JSON; None sends no body.

    Raises:
        ControlError: The server refused the request.
        botocore.exceptions.BotoCoreError: There was no response.
    """
    data = None if body is None else json.dumps(body)
    request = AWSRequest(method, url, headers={HEADER: token, "Content-Type": "application/json"}, data=data)
    response = web.send(request, verify=verify, timeout=SECONDS)
    if response.status_code not in (200, 204):
        raise ControlError(f"{method} {url} answered {response.status_code}: {response.text}")
    return json.loads(response.content) if response.content else None
