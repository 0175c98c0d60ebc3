"""The commands of the local system: their messages after failures."""

from pathlib import Path
from typing import Any

import pytest

from distilled_router.release.table import RETIRED, SUPERSEDED, Release
from local import __main__ as command
from local import servers, system
from local.state import State
from operate.errors import OperateError
from stacks.settings import ENVIRONMENTS, SettingsError


@pytest.fixture(autouse=True)
def local_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "forget_aws", lambda: None)  # it removes variables of this process
    monkeypatch.setenv("LOCAL_DIR", str(tmp_path))


def raising(error: BaseException) -> Any:
    def function(*_: Any, **__: Any) -> None:
        raise error

    return function


def test_interruption_says_how_to_stop_the_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system, "up", raising(KeyboardInterrupt()))
    assert command.main(["up"]) == 130
    assert "make local-down" in capsys.readouterr().err


def test_failed_step_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system, "up", raising(OperateError("cdk deploy failed.", advice="Do this.")))
    assert command.main(["up"]) == 1
    assert capsys.readouterr().err == "Failed: cdk deploy failed.\nDo this.\n"


def test_down_succeeds_when_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["down"]) == 0
    assert "Nothing was running." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["status", "env"])
def test_stopped_system_says_how_to_start_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name]) == 1
    assert "make local" in capsys.readouterr().err


def test_second_command_on_a_state_folder_is_refused(tmp_path: Path) -> None:
    state = State(tmp_path)
    with system.locked(state), pytest.raises(OperateError, match="Another command"), system.locked(state):
        pass


def test_down_stops_servers_whose_stacks_could_not_be_synthesized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CDK has created the folder of the assembly, and nothing in it."""
    (tmp_path / "cdk.out").mkdir()
    monkeypatch.setattr(servers, "running", lambda _: object())
    monkeypatch.setattr(servers, "stop", lambda _: ["emulator"])
    assert command.main(["down"]) == 0
    assert "Stopped emulator." in capsys.readouterr().out


class Row:
    """The row of a release, which doesn't change."""

    def __init__(self, **fields: Any) -> None:
        self._release = Release("aaaaaaaaaaaa", **fields)

    def poll(self) -> Release:
        return self._release


@pytest.mark.parametrize("state", [RETIRED, SUPERSEDED])
def test_release_that_an_operator_rolled_back_is_no_failure_of_a_deployment(
    tmp_path: Path, state: str
) -> None:
    rolled_back: Any = Row(state=state, rolled_back=1_800_000_000)
    system.wait_for_release(State(tmp_path), rolled_back)
    retired: Any = Row(state=RETIRED, message="replaced")
    with pytest.raises(OperateError, match="aaaaaaaaaaaa, retired: replaced"):
        system.wait_for_release(State(tmp_path), retired)


def test_unknown_environment_is_told_before_what_runs_is_to_be_stopped(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write_settings(ENVIRONMENTS / "dev.toml", "")
    running: Any = object()
    with pytest.raises(SettingsError, match="nosuch"):
        system.environment_of(state, "nosuch", running)
    with pytest.raises(OperateError, match=r"runs environments/dev\.toml"):
        system.environment_of(state, "prod", running)
    assert system.environment_of(state, "local", running) == ENVIRONMENTS / "dev.toml"
