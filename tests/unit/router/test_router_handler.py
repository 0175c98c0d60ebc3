"""The Lambda entry point with its real clients and no service that answers."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from router.assembly import CONNECT_SECONDS
from tests.unit.router.doubles import ContextDouble, router_env

ENVIRONMENT = {
    **router_env(time_budget_ms=400).variables(),
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    # Port 9, discard: connections are refused at once.
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
}


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> ModuleType:
    """Import the handler as a new environment does."""
    for variable, value in {**ENVIRONMENT, **environment}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delitem(sys.modules, "router.handler", raising=False)
    return importlib.import_module("router.handler")


def test_import_opens_a_connection_to_each_service_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the init phase, in which a whole CPU makes the handshakes quick."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        load(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{listening.getsockname()[1]}")
        for connection, _ in (listening.accept(), listening.accept()):
            connection.settimeout(0.01)
            with connection, pytest.raises(TimeoutError):
                connection.recv(1)


def test_import_does_not_wait_for_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> None:
        over.wait(60)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    load(monkeypatch)
    seconds = time.monotonic() - began
    over.set()
    assert 0.9 * CONNECT_SECONDS < seconds < 30
    assert CONNECT_SECONDS <= 1, "of the ten that the init phase has"


def test_unreachable_services_mean_static_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(monkeypatch, TIME_BUDGET_MS="20000")  # a busy machine takes long to make clients
    answer = module.handler({"query": "dog barking"}, ContextDouble())
    assert answer["source"] == "static"
    blob = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert blob["failures"] == {"route": "table_unreachable", "base": "unreachable"}


def test_services_that_accept_and_never_answer_cost_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of it each costs, test_router.py shows on a clock of its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        module = load(monkeypatch, AWS_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        answer = module.handler({"query": "dog barking"}, ContextDouble())
        assert 0.3 < time.monotonic() - started < 30
    assert answer["source"] == "static"


def test_mistake_in_the_environment_shows_at_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="TIME_BUDGET_MS"):
        load(monkeypatch, TIME_BUDGET_MS="soon")


HEADS = {"HEAD_BUCKET": "data-000000000000", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
LOADED = """
import sys, threading
import router.handler
heads = [name for name in sys.modules if name.startswith(("router.heads", "distilled_router.head"))]
print(len(heads), router.handler._ROUTER._heads is not None, threading.active_count())
router.handler.handler({"query": "dog barking"}, None)
print(len([name for name in sys.modules if name.startswith(("router.heads", "distilled_router.head"))]))
"""


@pytest.mark.parametrize(
    ("mode", "is_on"), [("", False), ("off", False), ("last_resort", True), ("first", True)]
)
def test_code_of_heads_is_imported_only_where_they_are_on(mode: str, is_on: bool) -> None:
    """In a process of its own, as a start is. No mode has another thread than those that connect."""
    more = {**HEADS, "HEAD_MODE": mode} if mode else {}
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={"PYTHONPATH": os.pathsep.join(sys.path), **ENVIRONMENT, **more},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    imported, has_heads, threads = lines[0].split()
    assert (int(imported) > 0, has_heads) == (is_on, str(is_on))
    assert int(threads) <= 3, "the main thread and two that connect"
    assert (int(lines[-1]) > 0) == is_on


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({**HEADS, "HEAD_MODE": "frist"}, "HEAD_MODE is 'frist', expected off, last_resort or first"),
        ({"HEAD_MODE": "first"}, "HEAD_BUCKET is missing"),
    ],
)
def test_mistake_about_heads_shows_at_deployment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        load(monkeypatch, **variables)


def test_start_with_heads_connects_to_no_more_services(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        load(monkeypatch, **{**HEADS, "HEAD_MODE": "first", "AWS_ENDPOINT_URL": url})
        connections = [listening.accept()[0] for _ in range(2)]
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()
        for connection in connections:
            connection.close()


def test_http_event_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(monkeypatch)
    event: dict[str, Any] = {"version": "2.0", "requestContext": {"http": {"method": "POST"}}, "body": "{"}
    assert module.handler(event, ContextDouble())["statusCode"] == 400
