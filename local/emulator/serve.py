"""The AWS emulator (a test double: MiniStack), with additions for CloudFormation, IAM and Step Functions.

- `POST /_cloudformation/cancellations` ends a Create or Update in progress, see `cloudformation.Order`; GET
  returns the orders, DELETE withdraws those that did not apply.
- `POST /_cloudformation/deliveries/2` delivers all later events of custom resources twice, `/1` ends that.
- `GET /_lambda/interfaces` returns the functions that have network interfaces: see `functions`.
- IAM decisions are recorded, and the Bedrock stand-in uses them too: see `access`.
- Executions have the limits of size and history: see `stepfunctions`.

Run it with `python local/emulator`, so that this folder, but not the project, is on the import path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import access  # type: ignore[import-not-found]  # this folder is on the path when it runs
import preloading  # type: ignore[import-not-found]  # as above
import stepfunctions  # type: ignore[import-not-found]  # as above
from cloudformation import CloudFormation  # type: ignore[import-not-found]  # as above
from functions import Functions  # type: ignore[import-not-found]  # as above
from ministack.app import app as ministack
from ministack.core import lambda_runtime

DELIVERIES = "/_cloudformation/deliveries/"
CANCELLATIONS = "/_cloudformation/cancellations"
CALLS = "/_iam/calls"
INTERFACES = "/_lambda/interfaces"
RESET = "/_ministack/reset"

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_functions = Functions()
_functions.install()
_cloudformation = CloudFormation(_functions.placed)
_cloudformation.install()
stepfunctions.install()

if python := os.environ.get("EMULATOR_PRELOAD"):
    lambda_runtime.subprocess = preloading.Preloading(python)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve MiniStack and the additional paths."""
    path = str(scope.get("path", ""))
    if scope["type"] == "http" and path.startswith(DELIVERIES):
        _cloudformation.deliveries = int(path.removeprefix(DELIVERIES))
        await _answer(send, None)
    elif scope["type"] == "http" and path == CANCELLATIONS:
        await _answer(send, _cancellations(scope["method"], await _body(receive)))
    elif scope["type"] == "http" and path == INTERFACES:
        await _answer(send, _functions.interfaces())
    elif scope["type"] == "http" and path == CALLS:
        body = await _body(receive) if scope["method"] == "POST" else b""
        await _answer(send, access.authorize(json.loads(body)) if body else access.record.read())
    else:
        await ministack(scope, receive, send)
        if path == RESET:
            access.record.reset()
            _cloudformation.reset()
            _functions.reset()


def _cancellations(method: str, body: bytes) -> Any:
    """Return the answer to a request to `CANCELLATIONS`."""
    if method == "POST":
        return _cloudformation.order(json.loads(body))
    return _cloudformation.withdraw() if method == "DELETE" else _cloudformation.orders()


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, value: Any) -> None:
    body = b"" if value is None else json.dumps(value, default=str).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200 if body else 204, "headers": headers})
    await send({"type": "http.response.body", "body": body})
