"""The settings of any environment, adapted to the local system."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local import adaptation
from local.adaptation import adapt
from local.state import State
from operate.environment import LOCAL_ACCOUNT
from operate.errors import OperateError
from stacks.settings import ENVIRONMENTS, PROJECT, Settings, load

type Write = Callable[..., Path]

NETWORK = """
[network]
subnet_ids = ["subnet-0123456789abcdef0"]
security_group_ids = ["sg-0123456789abcdef0"]

[security]
permissions_boundary = "TeamBoundary"
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `acme.toml`: the settings of an example, with other text and with more."""

    def _write(base: str, replaced: dict[str, str] | None = None, more: str = "") -> Path:
        text = (ENVIRONMENTS / f"{base}.toml").read_text(encoding="utf-8")
        for old, new in (replaced or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "acme.toml"
        path.write_text(text + more, encoding="utf-8")
        return path

    return _write


def deployed(tmp_path: Path, environment: str | Path, data: Path | None = None) -> Settings:
    """Return the settings that the local system runs, validated."""
    adapted, state = adapt(environment, data), State(tmp_path / "state")
    state.prepare()
    return load(state.write_settings(adapted.source, adapted.text))


def test_local_settings_stay_as_they_are() -> None:
    source = ENVIRONMENTS / "local.toml"
    adapted = adapt("local")
    assert (adapted.source, adapted.text, adapted.lines()) == (source, source.read_text(encoding="utf-8"), [])


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_other_settings_can_be_deployed_locally_under_their_own_name(
    tmp_path: Path, environment: str
) -> None:
    settings, local = deployed(tmp_path, environment), load("local")
    assert settings.owner == f"video-router-{environment}"
    assert (settings.account, settings.dataset.source) == (LOCAL_ACCOUNT, "file")
    assert (settings.retention, settings.absence_seconds) == (local.retention, local.absence_seconds)
    assert settings.rollout.dwell_seconds == local.rollout.dwell_seconds
    # Not what can be as in AWS.
    assert settings.rollout.steps == load(environment).rollout.steps
    assert settings.alarms.evaluation_periods == load(environment).alarms.evaluation_periods
    assert settings.encryption == load(environment).encryption


def test_each_changed_value_is_told_and_no_other() -> None:
    before = tomllib.loads((ENVIRONMENTS / "prod.toml").read_text(encoding="utf-8"))
    adapted = adapt("prod")
    after = tomllib.loads(adapted.text)
    first, *told = adapted.lines()
    assert first == "Replaced in environments/prod.toml, for this machine:"
    keys = {line.partition(":")[0].strip() for line in told if " -> " in line}
    assert keys == {key for key in leaves(before) | leaves(after) if at(before, key) != at(after, key)}
    assert "  account: 111122223333 -> 000000000000" in told
    assert "  dataset.training_version: 3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrH -> none" in told
    assert any("sample data" in line for line in told)


def test_comments_stay(write: Write) -> None:
    assert "# Have the quota raised" in adapt("prod").text.replace("takes. Have", "# Have")


def test_what_only_a_teams_account_has_is_left_out(tmp_path: Path, write: Write) -> None:
    settings = deployed(tmp_path, write("dev", more=NETWORK))
    assert (settings.network, settings.permissions_boundary) == (None, None)


def test_data_in_the_project_is_used(tmp_path: Path, write: Write) -> None:
    assert not adapt("dev").is_sample
    assert deployed(tmp_path, "dev").dataset == load("dev").dataset


def test_a_batch_of_labels_is_looked_at_as_often_as_the_clock_requires(tmp_path: Path, write: Write) -> None:
    files = 'training = "data/training.jsonl"\nholdout = "data/holdout.jsonl"\n'
    path = write("dev", {files: 'labels = "teacher"\nqueries = "data/queries.txt"\n'})
    assert deployed(tmp_path, path).labelling.poll_seconds == load("local").labelling.poll_seconds
    assert deployed(tmp_path, "dev").labelling == load("dev").labelling


def test_a_task_of_its_own_needs_data_of_its_own(tmp_path: Path, write: Write) -> None:
    path = write("prod", {"absence_seconds = 60": 'absence_seconds = 60\ntask = "examples/helpdesk"'})
    with pytest.raises(OperateError, match="outside the project") as caught:
        adapt(path)
    assert "training.jsonl and holdout.jsonl" in caught.value.advice
    folder = PROJECT / "examples" / "helpdesk"
    settings = deployed(tmp_path, path, folder)
    assert settings.dataset.training == "examples/helpdesk/training.jsonl"
    assert settings.gate == load("prod").gate


@pytest.mark.parametrize("missing", [["training.jsonl"], ["training.jsonl", "holdout.jsonl"]])
def test_a_folder_without_data_is_named(tmp_path: Path, missing: list[str]) -> None:
    for name in {"training.jsonl", "holdout.jsonl"} - set(missing):
        (tmp_path / name).touch()
    with pytest.raises(OperateError, match=f"has no {' and no '.join(missing)}"):
        adapt("local", tmp_path)


def test_data_outside_the_project_is_refused(tmp_path: Path) -> None:
    for name in adaptation.DATA_FILES:
        (tmp_path / name).touch()
    with pytest.raises(OperateError, match="is outside of the project"):
        adapt("local", tmp_path)


def leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in values.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def at(values: dict[str, Any], key: str) -> Any:
    table, _, rest = key.partition(".")
    return at(values.get(table, {}), rest) if rest else values.get(table)
