"""What the command line says when something goes wrong."""

from pathlib import Path
from typing import Any

import pytest

from local import __main__ as command
from local import system
from local.state import State
from operate import deployed, releases, rollback, watch
from operate.errors import LocalError


@pytest.fixture(autouse=True)
def local_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_forget_aws", lambda: None)  # it empties this process's environment
    monkeypatch.setenv("LOCAL_DIR", str(tmp_path))


def raising(error: BaseException) -> Any:
    def function(*_: Any, **__: Any) -> None:
        raise error

    return function


def test_a_failed_step_shows_what_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "deploy.log"
    log.write_text("many lines\nthe last line\n")
    error = LocalError("cdk deploy failed.", log=log, advice="Do this.")
    monkeypatch.setattr(system, "up", raising(error))
    assert command.main(["up"]) == 1
    shown = capsys.readouterr().err
    assert [part in shown for part in ("cdk deploy failed.", "the last line", str(log), "Do this.")] == [
        True
    ] * 4


def test_an_interruption_says_how_to_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system, "up", raising(KeyboardInterrupt()))
    assert command.main(["up"]) == 130
    assert "make local-down" in capsys.readouterr().err


def test_down_without_anything_running_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["down"]) == 0
    assert "Nothing was running." in capsys.readouterr().out


def test_status_without_anything_running_says_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["status"]) == 1
    assert "make local" in capsys.readouterr().err


def test_two_commands_never_work_on_one_folder(tmp_path: Path) -> None:
    state = State(tmp_path)
    with system.locked(state), pytest.raises(LocalError, match="Another command"), system.locked(state):
        pass


@pytest.fixture
def environment_of_releases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An environment that is there; what its commands were asked for."""
    asked: list[str] = []
    monkeypatch.setattr(deployed, "deployed", lambda name, _: name)
    monkeypatch.setattr(releases, "show", lambda at, _: asked.append(f"releases {at}"))
    monkeypatch.setattr(deployed, "watch", lambda name, _: f"{name}'s rollout")
    monkeypatch.setattr(
        rollback,
        "roll_back",
        lambda at, to, rise: asked.append(f"rollback {at} {to} {rise.watch if rise else 'at once'}"),
    )
    monkeypatch.setattr(rollback, "show", lambda *_: None)
    monkeypatch.setattr(watch, "follow", lambda at, _: 1)
    return asked


def test_commands_of_releases_name_the_environment(environment_of_releases: list[str]) -> None:
    assert command.main(["releases", "--environment", "dev"]) == 0
    assert command.main(["rollback", "--environment", "dev", "--to", "abc"]) == 0
    assert command.main(["rollback", "--to", ""]) == 0
    assert command.main(["rollback", "--environment", "dev", "--gradual"]) == 0
    assert environment_of_releases == [
        "releases dev",
        "rollback dev abc at once",
        "rollback local  at once",
        "rollback dev  dev's rollout",
    ]


@pytest.mark.usefixtures("environment_of_releases")
def test_watch_ends_as_the_release_does() -> None:
    assert command.main(["watch"]) == 1


@pytest.mark.usefixtures("environment_of_releases")
def test_interrupted_watch_leaves_the_release_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "follow", raising(KeyboardInterrupt()))
    assert command.main(["watch"]) == 130
    assert "The release goes on." in capsys.readouterr().err
