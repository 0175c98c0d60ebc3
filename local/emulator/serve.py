"""The AWS emulator (a test double: MiniStack), with additions for custom resources and IAM.

- After a failed Create, AWS sends a Delete with the physical id of the failure; MiniStack does not.
- AWS may deliver an event twice. `POST /_cloudformation/deliveries/2` does that for all later events, `/1`
  ends it.
- IAM decisions are recorded, and the Bedrock stand-in uses them too: see `access`.

Run it with `python local/emulator`, so that this folder, but not the project, is on the import path.
"""

from __future__ import annotations

import contextvars
import json
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import access  # type: ignore[import-not-found]  # this folder is on the path when it runs
import preloading  # type: ignore[import-not-found]  # as above
from ministack.app import app as ministack
from ministack.core import lambda_runtime
from ministack.services import lambda_svc
from ministack.services.cloudformation import custom_resource

DELIVERIES = "/_cloudformation/deliveries/"
CALLS = "/_iam/calls"
RESET = "/_ministack/reset"

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_invoke = custom_resource.invoke_custom_resource
_deliver_response = custom_resource.deliver_response
_execute = lambda_svc._execute_function_with_config_scope


class _CustomResources:
    """CloudFormation's behaviours that MiniStack's custom resources lack."""

    def __init__(self) -> None:
        self.deliveries = 1
        self._failed: dict[tuple[str, str], str] = {}
        self._thread = threading.local()

    def deliver_response(self, token: str, response: Mapping[str, Any]) -> bool:
        """Deliver a resource's response; if it failed, keep its physical id for the Delete."""
        if response.get("Status") == "FAILED":
            key = (str(response["StackId"]), str(response["LogicalResourceId"]))
            self._failed[key] = str(response["PhysicalResourceId"])
        return bool(_deliver_response(token, response))

    def invoke(
        self,
        request_type: str,
        logical_id: str,
        props: Mapping[str, Any],
        stack_name: str,
        stack_id: str,
        resource_type: str,
        **more: Any,
    ) -> Any:
        """Send an event and wait for the response; after a failed Create, send a Delete.

        Raises:
            RuntimeError: the resource failed, as MiniStack reports it.
            TimeoutError: the resource did not respond.
        """
        where = (logical_id, props, stack_name, stack_id, resource_type)
        try:
            return self._send(request_type, *where, **more)
        except (RuntimeError, TimeoutError):
            physical_id = self._failed.pop((stack_id, logical_id), None)
            if request_type == "Create" and physical_id:
                self._send("Delete", *where, physical_id=physical_id)
            raise

    def _send(self, *arguments: Any, **more: Any) -> Any:
        self._thread.copies = self.deliveries - 1
        return _invoke(*arguments, **more)

    def execute(self, function: Mapping[str, Any], event: Mapping[str, Any]) -> Any:
        """Run a function; an event from CloudFormation runs as often as `deliveries` says."""
        copies = getattr(self._thread, "copies", 0)
        self._thread.copies = 0
        for _ in range(copies):
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(_execute, function, dict(event)), daemon=True).start()
        return _execute(function, event)


_resources = _CustomResources()
custom_resource.invoke_custom_resource = _resources.invoke
custom_resource.deliver_response = _resources.deliver_response
lambda_svc._execute_function_with_config_scope = _resources.execute

if python := os.environ.get("EMULATOR_PRELOAD"):
    lambda_runtime.subprocess = preloading.Preloading(python)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve MiniStack and the additional paths."""
    path = str(scope.get("path", ""))
    if scope["type"] == "http" and path.startswith(DELIVERIES):
        _resources.deliveries = int(path.removeprefix(DELIVERIES))
        await _answer(send, None)
    elif scope["type"] == "http" and path == CALLS:
        body = await _body(receive) if scope["method"] == "POST" else b""
        await _answer(send, access.authorize(json.loads(body)) if body else access.record.read())
    else:
        await ministack(scope, receive, send)
        if path == RESET:
            access.record.reset()


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
