"""The record of running servers, and servers that a killed run leaves behind."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from local import servers
from local.servers import Server
from local.state import State
from operate import processes

SLEEP = ["-c", "import time; time.sleep(60)"]


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path)
    state.prepare()
    return state


def record(state: State, *entries: Server) -> None:
    state.servers.write_text(json.dumps([asdict(entry) for entry in entries]))


def test_nothing_runs_without_a_record(state: State) -> None:
    assert servers.running(state) is None
    assert servers.recorded(state) == []


def test_broken_record_is_ignored(state: State) -> None:
    state.servers.write_text('[{"name": "emul')
    assert servers.recorded(state) == []


def test_record_of_a_killed_run_is_removed(state: State) -> None:
    record(state, *(Server(name, 2**22 + 1, "https://x") for name in ("emulator", "bedrock", "bridge")))
    state.env.write_text("AWS_ENDPOINT_URL=https://x\n")
    assert servers.running(state) is None
    assert servers.stop(state) == []
    assert not state.env.exists()
    assert not state.servers.exists()


def test_system_with_a_dead_server_is_not_running(state: State) -> None:
    pid = processes.start(SLEEP, f"{state.root}/emulator", os.environ, state.root, state.log("x"))
    record(state, Server("emulator", pid, "https://x"), Server("bedrock", 2**22 + 1, "http://x"))
    assert servers.running(state) is None
    assert servers.stop(state) == ["emulator"]
    assert not processes.is_ours(pid, f"{state.root}/emulator")


def test_servers_of_another_state_folder_keep_running(state: State, tmp_path: Path) -> None:
    other = State(tmp_path / "other")
    other.prepare()
    pid = processes.start(SLEEP, f"{other.root}/emulator", os.environ, other.root, other.log("x"))
    try:
        record(state, Server("emulator", pid, "https://x"))
        assert servers.stop(state) == []
        assert processes.is_ours(pid, f"{other.root}/emulator")
    finally:
        processes.stop(pid, f"{other.root}/emulator")
