"""The local system for an app of one's own: commands that reach it, and servers without our stacks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from local import own_app, servers, system
from local.keys import Keys
from local.servers import Server, Servers
from local.state import State
from operate.console import console
from operate.errors import OperateError
from stacks.settings import PROJECT, locate

REACHING = {"AWS_ENDPOINT_URL": "https://127.0.0.1:1", "AWS_REGION": "us-west-2"}
_SERVER = Server("emulator", 0, "https://127.0.0.1:1")
RUNNING = Servers(_SERVER, _SERVER, _SERVER, Keys.create(), "us-west-2")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setattr(own_app, "variables", lambda _: REACHING)
    return State(tmp_path)


def test_a_command_reaches_the_local_system_and_nothing_else(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("MINE", "kept")
    write = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w')); sys.exit(3)"
    assert own_app.run(state, ["python", "-c", write, str(tmp_path / "environ")]) == 3
    found = json.loads((tmp_path / "environ").read_text())
    assert found.items() >= {**REACHING, "MINE": "kept"}.items()
    assert "AWS_PROFILE" not in found
    assert found["PYTHONPATH"].split(os.pathsep)[0] == str(PROJECT)
    for tool in ("cdk", "node", "python"):
        assert shutil.which(tool, path=found["PATH"])
    assert shutil.which("python", path=found["PATH"]) == str(Path(sys.executable).parent / "python")


@pytest.mark.parametrize(("command", "message"), [(["no-such-tool"], "no-such-tool"), ([], "command")])
def test_a_command_that_does_not_exist_is_told(state: State, command: list[str], message: str) -> None:
    with pytest.raises(OperateError, match=message):
        own_app.run(state, command)


def test_servers_of_another_region_are_refused(
    state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "running", lambda _: RUNNING)
    with pytest.raises(OperateError, match="runs in us-west-2, and not in us-east-1"):
        own_app.start(state, console(80), "us-east-1")
    assert capsys.readouterr().out == ""


def test_servers_alone_take_any_environment(state: State) -> None:
    asked = str(PROJECT / "environments" / "dev.toml")
    assert system.environment_of(state, asked, RUNNING) == asked
    state.write_settings(locate("local"), "")
    with pytest.raises(OperateError, match=r"runs environments/local\.toml"):
        system.environment_of(state, asked, RUNNING)
