"""Settings files with errors: `write` writes one to a folder, `problems` returns what `load` reports."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stacks.settings import Problem, Settings, SettingsError, load

EXAMPLE = Path(__file__).with_name("example.toml")


def as_toml(data: dict[str, Any], prefix: str = "") -> str:
    """Nested dictionaries as TOML; JSON's scalars, strings and lists are TOML too, except for its keys."""
    tables = {key: value for key, value in data.items() if isinstance(value, dict)}
    lines = [
        f"{json.dumps(k)} = {json.dumps(v).lower() if isinstance(v, float) else json.dumps(v)}"
        for k, v in data.items()
        if k not in tables
    ]
    for key, value in tables.items():
        path = f"{prefix}{json.dumps(key)}"
        lines += [f"[{path}]", as_toml(value, f"{path}.")]
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "environments"
    path.mkdir()
    monkeypatch.chdir(tmp_path)  # messages name files relative to it
    return path


@pytest.fixture
def write(folder: Path) -> Callable[[dict[str, Any]], Path]:
    """Return a function that writes the example to `test.toml`, with changes by key; `...` removes a key."""

    def _write(changes: dict[str, Any]) -> Path:
        data = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *tables, last = key.split(".")
            table = data
            for name in tables:
                table = table.setdefault(name, {})
            if value is ...:
                table.pop(last, None)
            else:
                table[last] = value
        path = folder / "test.toml"
        path.write_text(as_toml(data), encoding="utf-8")
        return path

    return _write


@pytest.fixture
def changed(write: Callable[[dict[str, Any]], Path], folder: Path) -> Callable[[dict[str, Any]], Settings]:
    """Return a function that loads the example with changes."""

    def _changed(changes: dict[str, Any]) -> Settings:
        write(changes)
        return load(folder / "test.toml")

    return _changed


@pytest.fixture
def problems(changed: Callable[[dict[str, Any]], Settings]) -> Callable[[dict[str, Any]], dict[str, Problem]]:
    """Return the problems of the changed example by key; empty if it loads."""

    def _problems(changes: dict[str, Any]) -> dict[str, Problem]:
        try:
            changed(changes)
        except SettingsError as error:
            return {problem.key: problem for problem in error.problems}
        return {}

    return _problems
