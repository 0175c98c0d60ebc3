"""The AWS emulator (a test double: MiniStack), with additions for CloudFormation, IAM and Step Functions.

- `POST /_cloudformation/cancellations` ends a Create or Update in progress, see `cloudformation.Order`; GET
  returns the orders, DELETE withdraws those that did not apply.
- `POST /_cloudformation/deliveries/2` delivers all later events of custom resources twice, `/1` ends that.
- `GET /_lambda/interfaces` returns the functions that have network interfaces: see `functions`.
- Only requests with the keys of this start are admitted: see `gate`.
- IAM decisions are recorded, and the Bedrock stand-in uses them too: see `access`. They see the keys of
  DynamoDB items: see `item_keys`, and the claims of GitHub's tokens: see `web_identity`.
- DynamoDB refuses an update that changes one attribute twice: see `update_paths`.
- CloudFormation takes alarms on metric math: see `metric_math`.
- Executions have the limits of size and history: see `stepfunctions`.

Run it with `python local/emulator`, so that this folder, but not the project, is on the import path.
"""

from __future__ import annotations

import json
import os
from typing import Any

import access  # type: ignore[import-not-found]  # this folder is on the path when it runs
import gate  # type: ignore[import-not-found]  # as above
import item_keys  # type: ignore[import-not-found]  # as above
import metric_math  # type: ignore[import-not-found]  # as above
import preloading  # type: ignore[import-not-found]  # as above
import stepfunctions  # type: ignore[import-not-found]  # as above
import update_paths  # type: ignore[import-not-found]  # as above
import web_identity  # type: ignore[import-not-found]  # as above
from cloudformation import CloudFormation  # type: ignore[import-not-found]  # as above
from functions import Functions  # type: ignore[import-not-found]  # as above
from ministack.app import app as ministack
from ministack.core import lambda_runtime

DELIVERIES = "/_cloudformation/deliveries/"
CANCELLATIONS = "/_cloudformation/cancellations"
CALLS = "/_iam/calls"
INTERFACES = "/_lambda/interfaces"
RESET = "/_ministack/reset"

# Functions inherit the variables of this process, and must not have the token.
_gate = gate.Gate(os.environ["AWS_ACCESS_KEY_ID"], os.environ.pop("LOCAL_TOKEN"))
_functions = Functions()
_functions.install()
_cloudformation = CloudFormation(_functions.placed)
_cloudformation.install()
item_keys.install()
metric_math.install()
stepfunctions.install()
update_paths.install()
web_identity.install()

if python := os.environ.get("EMULATOR_PRELOAD"):
    lambda_runtime.subprocess = preloading.Preloading(python)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve MiniStack and the additional paths to those that `gate` admits."""
    if scope["type"] == "http":
        admitted = await _gate.admit(scope, receive, send)
        if admitted is not None:
            await _serve(scope, admitted, send)
    elif scope["type"] == "websocket":  # nothing here uses one
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await ministack(scope, receive, send)


async def _serve(scope: Any, receive: Any, send: Any) -> None:
    path = str(scope["path"])
    if path.startswith(DELIVERIES):
        _cloudformation.deliveries = int(path.removeprefix(DELIVERIES))
        await _answer(send, None)
    elif path == CANCELLATIONS:
        await _answer(send, _cancellations(scope["method"], await gate.read(receive) or b""))
    elif path == INTERFACES:
        await _answer(send, _functions.interfaces())
    elif path == CALLS:
        body = await gate.read(receive) if scope["method"] == "POST" else b""
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


async def _answer(send: Any, value: Any) -> None:
    await gate.answer(send, 204 if value is None else 200, value)
