"""The endpoints by which tests and people steer the stand-in; their paths begin with `/_`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from local.bedrock.application import Application
from local.bedrock.protocol import JSON, Request, Response
from local.bedrock.state import summary

_LATENCIES = ("first_token_ms", "token_ms")


class Control:
    """Answers the control endpoints."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._account = application.account
        self._endpoints: Mapping[tuple[str, str], Callable[[Request], Any]] = {
            ("GET", "/_health"): self._health,
            ("GET", "/_state"): lambda _: summary(self._account),
            ("GET", "/_calls"): self._calls,
            ("GET", "/_faults"): lambda _: self._account.faults.left(),
            ("POST", "/_faults"): self._order,
            ("DELETE", "/_faults"): lambda _: self._account.faults.clear(),
            ("POST", "/_lifecycle"): self._lifecycle,
            ("POST", "/_latency"): self._latency,
            ("POST", "/_reset"): lambda _: self._application.reset(),
        }

    def handle(self, request: Request) -> Response:
        """Answer a request to a control endpoint."""
        endpoint = self._endpoints.get((request.method, request.path))
        if endpoint is None:
            there = ", ".join(f"{method} {path}" for method, path in self._endpoints)
            return _json(404, {"message": f"There is no {request.method} {request.path}; there are {there}."})
        try:
            result = endpoint(request)
        except (ValueError, TypeError) as error:
            return _json(400, {"message": str(error)})
        return _json(200, {} if result is None else result)

    def _health(self, _: Request) -> dict[str, Any]:
        settings = self._account.settings
        return {"status": "ok", "service": "test double of Amazon Bedrock", "region": settings.region}

    def _calls(self, request: Request) -> list[dict[str, Any]]:
        return self._application.calls(parse_qs(request.query).get("operation", [None])[-1])

    def _order(self, request: Request) -> list[dict[str, Any]]:
        wanted = json.loads(request.body)
        orders = wanted if isinstance(wanted, list) else [wanted]
        if not all(isinstance(order, dict) for order in orders):
            raise ValueError("a fault is a JSON object; several are a list of them")
        for order in orders:
            self._account.faults.order(order)
        return self._account.faults.left()

    def _lifecycle(self, request: Request) -> None:
        wanted = _object(request, {"modelId", "legacyTime", "endOfLifeTime"})
        times = [wanted.get("legacyTime"), wanted.get("endOfLifeTime")]
        if not all(isinstance(time, int | float | None) for time in times):
            raise ValueError(
                f"legacyTime and endOfLifeTime must be seconds since the epoch or null, not {times}"
            )
        self._account.catalogue.set_lifecycle(wanted.get("modelId", ""), *times)

    def _latency(self, request: Request) -> None:
        wanted = _object(request, set(_LATENCIES))
        for name, value in wanted.items():
            if not isinstance(value, int | float) or not 0 <= value <= 60_000:
                raise ValueError(f"{name} must be milliseconds from 0 to 60000, not {value!r}")
        self._account.settings = replace(self._account.settings, **wanted)


def _object(request: Request, allowed: set[str]) -> dict[str, Any]:
    wanted = json.loads(request.body)
    if not isinstance(wanted, dict) or wanted.keys() - allowed:
        raise ValueError(f"this takes a JSON object with the members {', '.join(sorted(allowed))}")
    return wanted


def _json(status: int, value: Any) -> Response:
    return Response(status, json.dumps(value).encode(), {"content-type": JSON})
