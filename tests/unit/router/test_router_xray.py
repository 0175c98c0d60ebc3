"""Segments for X-Ray's daemon; tracing never prevents an answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from router.xray import Span, XRay
from tests.unit.router.doubles import BASE_MODEL, TableDouble, client_error
from tests.unit.router.scenes import LIVE_ROUTE, STUDENT, MakeBench, healthy

SAMPLED = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0"


class Daemon:
    """Listens on loopback, as X-Ray's daemon beside a function does."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(2)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def received(self) -> dict[str, Any]:
        """Return the next segment."""
        header, _, document = self._socket.recv(65_536).decode().partition("\n")
        assert json.loads(header) == {"format": "json", "version": 1}
        found: dict[str, Any] = json.loads(document)
        return found

    def is_idle(self) -> bool:
        """Return whether nothing was received."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(65_536)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Yield a daemon."""
    listening = Daemon()
    yield listening
    listening.close()


@pytest.fixture
def traced(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """Return the daemon of a sampled invocation."""
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", daemon.address)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    return daemon


def test_a_query_and_its_calls_are_subsegments_of_the_invocation(bench: MakeBench, traced: Daemon) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), tracing=True)
    made.ask()
    document = traced.received()
    assert document["type"] == "subsegment"
    assert document["trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"
    assert document["parent_id"] == "53995c3f42cd8ad8"
    assert document["annotations"] == {"release": "aaaaaaaaaaaa", "source": "distilled", "cached": False}
    route, model = document["subsegments"]
    assert (route["name"], route["aws"]) == ("DynamoDB", {"operation": "GetItem"})
    assert (model["name"], model["aws"]) == ("Bedrock Runtime", {"operation": "Converse"})
    for one in (document, route, model):
        assert int(one["id"], 16) >= 0
        assert len(one["id"]) == 16
        assert document["start_time"] <= one["start_time"] <= one["end_time"] <= document["end_time"]
    assert {route["namespace"], model["namespace"]} == {"aws"}
    assert not {"fault", "error", "throttle"} & (route.keys() | model.keys())
    made.ask()
    assert traced.received()["annotations"]["cached"] is True


def test_calls_that_failed_are_coloured(bench: MakeBench, traced: Daemon) -> None:
    throttled, down = client_error("ThrottlingException", 429), client_error("InternalServerException", 500)
    made = bench(healthy(**{STUDENT: throttled, BASE_MODEL: down}), TableDouble(LIVE_ROUTE), tracing=True)
    made.ask("dog barking")
    document = traced.received()
    assert (document["annotations"]["source"], document["annotations"]["reason"]) == ("static", "throttled")
    _, student, base = document["subsegments"]
    assert (student["throttle"], student["error"]) == (True, True)
    assert base["fault"] is True
    assert "dog" not in json.dumps(document)


def test_output_that_is_no_weights_is_no_fault_of_the_call(bench: MakeBench, traced: Daemon) -> None:
    bench(healthy(**{STUDENT: "no weights"}), TableDouble(LIVE_ROUTE), tracing=True).ask()
    assert not {"fault", "error"} & traced.received()["subsegments"][1].keys()


def test_a_batch_sends_each_query_that_was_asked(bench: MakeBench, traced: Daemon) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), tracing=True)
    made.router.handle({"queries": ["a dog", "a cat", "a  dog"]})
    assert {traced.received()["annotations"]["source"] for _ in range(2)} == {"distilled"}
    assert traced.is_idle()


@pytest.mark.parametrize(
    "header", ["", "Root=1-5759e988-bd86;Parent=53995c;Sampled=0", "nonsense", "Sampled=1"]
)
def test_nothing_is_sent_where_lambda_samples_nothing(
    bench: MakeBench, traced: Daemon, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
    bench(healthy(), TableDouble(LIVE_ROUTE), tracing=True).ask()
    assert traced.is_idle()


def test_nothing_is_sent_where_tracing_is_off(bench: MakeBench, traced: Daemon) -> None:
    bench(healthy(), TableDouble(LIVE_ROUTE), tracing=False).ask()
    assert traced.is_idle()


@pytest.mark.parametrize(
    "address",
    ["", "nowhere", "169.254.79.129:", "127.0.0.1:9", "127.0.0.1:70000", "127.0.0.1:²", "256.0.0.1:2000"],
)
def test_a_daemon_that_is_not_there_costs_nothing(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", address)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", SAMPLED)
    made = bench(healthy(), TableDouble(LIVE_ROUTE), tracing=True)
    for query in ("a dog", "a cat", "a bird"):
        assert made.ask(query)["source"] == "distilled"


def test_the_daemons_two_addresses(daemon: Daemon) -> None:
    environment = {"AWS_XRAY_DAEMON_ADDRESS": f"tcp:127.0.0.1:9 udp:{daemon.address}"}
    xray = XRay(enabled=True, environment={**environment, "_X_AMZN_TRACE_ID": SAMPLED})
    xray.send([Span("DynamoDB", "GetItem", 0.0, 0.1)], {}, ended=100.0, seconds=0.5)
    document = daemon.received()
    assert (document["start_time"], document["end_time"]) == (99.5, 100.0)
    assert document["subsegments"][0]["end_time"] == 99.6
