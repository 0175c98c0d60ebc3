"""What X-Ray is told of a query: a subsegment, and in it one for the route and for each model that was asked.

Sent to the daemon that runs beside a traced function, as X-Ray's developer guide describes it ("segment
documents", "sending segment documents to the X-Ray daemon"). Why not by an SDK: decision 23.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

HEADER = json.dumps({"format": "json", "version": 1})
# Bedrock's own reasons, as X-Ray colours them: the caller's mistakes and the rest, which is the service's.
_ERRORS = frozenset({"denied", "not_found", "not_ready", "refused", "throttled"})
_ANSWERS = frozenset({"", "empty_output", "invalid_output"})


class Span(NamedTuple):
    """A call of a service: seconds since the query came, and what was wrong with the answer."""

    service: str
    operation: str
    began: float
    ended: float
    reason: str = ""


class XRay:
    """Sends subsegments where Lambda samples the invocation. Never raises, and never waits."""

    def __init__(self, *, enabled: bool, environment: Mapping[str, str] = os.environ) -> None:
        """Look where the daemon listens; nothing is sent where tracing is off, or where there is none."""
        self._environment = environment
        self._daemon = _address(environment.get("AWS_XRAY_DAEMON_ADDRESS", "")) if enabled else None
        self._socket: socket.socket | None = None

    def send(self, spans: list[Span], annotations: Mapping[str, Any], ended: float, seconds: float) -> None:
        """Tell of a query that has just been answered, at `ended` on the wall clock, within `seconds`.

        Annotations can be searched for; None is left out.
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
        # A document that is lost is no loss to who asked, whatever went wrong.
        with suppress(Exception):
            self._open().sendto(f"{HEADER}\n{json.dumps(document)}".encode(), self._daemon)

    def _parent(self) -> dict[str, str] | None:
        """The invocation's segment, where it is sampled; Lambda sets the variable anew for each one."""
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
    """Host and port from "host:port", or from the long form "tcp:host:port udp:host:port"."""
    found = next((part for part in text.split() if part.startswith("udp:")), text).removeprefix("udp:")
    host, _, port = found.rpartition(":")
    return (host, int(port)) if host and port.isdecimal() else None


def _timed(name: str, began: float, seconds: float) -> dict[str, Any]:
    # SnapStart restores the state of an ordinary generator, and with it its ids.
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
