"""The endpoints that control the stand-in; their paths begin with `/_`."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from local.bedrock.application import Application
from local.bedrock.protocol import JSON, Request, Response
from local.bedrock.settings import Lag
from local.bedrock.state import summary
from local.keys import HEADER

_LATENCIES = ("first_token_ms", "token_ms")
# It reveals and changes nothing; all others need the token.
_OPEN = "/_health"


class Control:
    """The control endpoints. A request needs `token` in the header `HEADER`."""

    def __init__(self, application: Application, token: str) -> None:
        self._application = application
        self._token = token
        self._account = application.account
        self._endpoints: Mapping[tuple[str, str], Callable[[Request], Any]] = {
            ("GET", "/_health"): self._health,
            ("GET", "/_state"): lambda _: summary(self._account),
            ("GET", "/_calls"): self._calls,
            ("GET", "/_faults"): lambda _: self._account.faults.pending(),
            ("POST", "/_faults"): self._add_faults,
            ("DELETE", "/_faults"): lambda _: self._account.clear_faults(),
            ("GET", "/_lag"): lambda _: self._account.lag.shown(),
            ("POST", "/_lag"): self._change_lag,
            ("DELETE", "/_lag"): self._end_lag,
            ("POST", "/_lifecycle"): self._lifecycle,
            ("POST", "/_latency"): self._latency,
            ("POST", "/_reset"): lambda _: self._application.reset(),
        }

    def handle(self, request: Request) -> Response:
        """Return the response to a request for a control endpoint."""
        given = request.headers.get(HEADER, "")
        if request.path != _OPEN and not hmac.compare_digest(given.encode(), self._token.encode()):
            return _json(403, {"message": f"Send the token of the stand-in in the header {HEADER}."})
        endpoint = self._endpoints.get((request.method, request.path))
        if endpoint is None:
            known = ", ".join(f"{method} {path}" for method, path in self._endpoints)
            return _json(
                404, {"message": f"There is no {request.method} {request.path}. Use one of {known}."}
            )
        try:
            result = endpoint(request)
        except (ValueError, TypeError) as error:
            return _json(400, {"message": str(error)})
        return _json(200, {} if result is None else result)

    def _health(self, _: Request) -> dict[str, Any]:
        settings = self._account.settings
        return {"status": "ok", "service": "test double of Amazon Bedrock", "region": settings.region}

    def _calls(self, request: Request) -> list[dict[str, Any]]:
        """Return the recorded calls without the callers' keys: who has one can call Bedrock with it."""
        calls = self._application.calls(parse_qs(request.query).get("operation", [None])[-1])
        return [{name: value for name, value in call.items() if name != "access_key"} for call in calls]

    def _add_faults(self, request: Request) -> list[dict[str, Any]]:
        given = json.loads(request.body)
        faults = given if isinstance(given, list) else [given]
        if not all(isinstance(fault, dict) for fault in faults):
            raise ValueError("a fault is a JSON object; several are a list of objects")
        for fault in faults:
            self._account.faults.add(fault)
        return self._account.faults.pending()

    def _change_lag(self, request: Request) -> dict[str, Any]:
        given = json.loads(request.body)
        if not isinstance(given, dict):
            raise ValueError("the body must be a JSON object")
        self._account.lag = self._account.lag.changed(given)
        return self._account.lag.shown()

    def _end_lag(self, _: Request) -> dict[str, Any]:
        self._account.lag = Lag()
        return self._account.lag.shown()

    def _lifecycle(self, request: Request) -> None:
        given = _object(request, {"modelId", "legacyTime", "endOfLifeTime"})
        times = [given.get("legacyTime"), given.get("endOfLifeTime")]
        if not all(isinstance(time, int | float | None) for time in times):
            raise ValueError(
                f"legacyTime and endOfLifeTime must be seconds since the epoch or null, not {times}"
            )
        self._account.catalogue.set_lifecycle(given.get("modelId", ""), *times)

    def _latency(self, request: Request) -> None:
        given = _object(request, set(_LATENCIES))
        for name, value in given.items():
            if not isinstance(value, int | float) or not 0 <= value <= 60_000:
                raise ValueError(f"{name} must be milliseconds from 0 to 60000, not {value!r}")
        self._account.settings = replace(self._account.settings, **given)


def _object(request: Request, allowed: set[str]) -> dict[str, Any]:
    given = json.loads(request.body)
    if not isinstance(given, dict) or given.keys() - allowed:
        raise ValueError(f"the body must be a JSON object with members of {', '.join(sorted(allowed))}")
    return given


def _json(status: int, value: Any) -> Response:
    return Response(status, json.dumps(value).encode(), {"content-type": JSON})
