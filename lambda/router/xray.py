"""X-Ray subsegments of a query: one for the query, and within it one for each service call.

They go to the daemon that runs beside a traced function (X-Ray developer guide, "segment documents" and
"sending segment documents to the X-Ray daemon"). Decision 23 says why no SDK is used.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

HEADER = json.dumps({"format": "json", "version": 1})
# Reasons that X-Ray shows as the caller's errors; all others are the service's faults.
_ERRORS = frozenset({"denied", "not_found", "not_ready", "refused", "throttled"})
_ANSWERS = frozenset({"", "empty_output", "invalid_output"})


class Span(NamedTuple):
    """One service call: begin and end in seconds since the query arrived, and the reason if it failed."""

    service: str
    operation: str
    began: float
    ended: float
    reason: str = ""


class XRay:
    """Sends subsegments if Lambda samples the invocation. Never raises or blocks."""

    def __init__(self, *, enabled: bool, environment: Mapping[str, str] = os.environ) -> None:
        """Read the daemon's address; nothing is sent if tracing is off or there is no daemon."""
        self._environment = environment
        self._daemon = _address(environment.get("AWS_XRAY_DAEMON_ADDRESS", "")) if enabled else None
        self._socket: socket.socket | None = None

    def send(self, spans: list[Span], annotations: Mapping[str, Any], ended: float, seconds: float) -> None:
        """Send the subsegments of a query that was just answered.

        Args:
            spans: the query's service calls.
            annotations: searchable values; None is left out.
            ended: wall clock at the end, in seconds.
            seconds: the duration.
        """
        parent = self._parent()
        if not parent or self._daemon is None:
            return
        began = ended - seconds
        document = {
            "type": "subsegment",
            **parent,
            **_timed("route a query", began, seconds),
            "annotations": {key: value for key, value in annotations.items() if value is not None},
            "subsegments": [_call(span, began) for span in spans],
        }
        # A lost document must not affect the answer.
        with suppress(Exception):
            self._open().sendto(f"{HEADER}\n{json.dumps(document)}".encode(), self._daemon)

    def _parent(self) -> dict[str, str] | None:
        """Return the invocation's segment if it is sampled. Lambda sets the variable for each invocation."""
        header = self._environment.get("_X_AMZN_TRACE_ID", "")
        fields = dict(part.partition("=")[::2] for part in header.split(";"))
        if fields.get("Sampled") != "1" or not fields.get("Root") or not fields.get("Parent"):
            return None
        return {"trace_id": fields["Root"], "parent_id": fields["Parent"]}

    def _open(self) -> socket.socket:
        if self._socket is None:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            opened.setblocking(False)
            self._socket = opened
        return self._socket


def _address(text: str) -> tuple[str, int] | None:
    """Parse host and port of "host:port", or of the long form "tcp:host:port udp:host:port"."""
    found = next((part for part in text.split() if part.startswith("udp:")), text).removeprefix("udp:")
    host, _, port = found.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else None


def _timed(name: str, began: float, seconds: float) -> dict[str, Any]:
    # Not `random`: SnapStart restores its state, so environments would create the same ids.
    return {"id": os.urandom(8).hex(), "name": name, "start_time": began, "end_time": began + seconds}


def _call(span: Span, began: float) -> dict[str, Any]:
    document = {
        **_timed(span.service, began + span.began, span.ended - span.began),
        "namespace": "aws",
        "aws": {"operation": span.operation},
    }
    if span.reason not in _ANSWERS:
        document["error" if span.reason in _ERRORS else "fault"] = True
    if span.reason == "throttled":
        document["throttle"] = True
    return document
