"""Read a settings file, and report all its problems at once."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from stacks.settings.explanation import Schema, allowed_by, found, key_text, node_at
from stacks.settings.fields import PROJECT
from stacks.settings.types import Settings

ENVIRONMENTS = PROJECT / "environments"


@dataclass(frozen=True)
class Problem:
    """A problem in a settings file: its key, the value found, and what is allowed."""

    file: str
    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: found {self.found}; allowed: {self.allowed}"


class SettingsError(Exception):
    """The settings are invalid; the text lists every problem, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def locate(environment: str | Path) -> Path:
    """Return the settings file of an environment.

    Args:
        environment: name of a file in `environments/`, without `.toml`, or the path of a settings file.

    >>> locate("dev").relative_to(PROJECT).as_posix()
    'environments/dev.toml'
    >>> locate("../acme.toml").as_posix()
    '../acme.toml'
    """
    if isinstance(environment, Path) or environment.endswith(".toml") or "/" in environment:
        return Path(environment)
    return ENVIRONMENTS / f"{environment}.toml"


def load(environment: str | Path) -> Settings:
    """Return the settings of an environment. Its name is that of its file, without `.toml`.

    Args:
        environment: as in `locate`.

    Raises:
        SettingsError: the file is missing, isn't TOML, or has an invalid setting.

    >>> load("local").region
    'us-east-1'
    """
    path = locate(environment)
    file = shown(path)
    raw = _read(path, file, str(environment))
    named_inside = "environment" in raw
    try:
        settings = Settings.model_validate({**raw, "environment": path.stem})
    except ValidationError as error:
        problems = [_problem(details, raw, file) for details in error.errors(include_url=False)]
    else:
        if not named_inside:
            return settings.of_file(file)
        problems = []
    if named_inside:
        allowed = "nothing: the file's name is the environment"
        problems.append(Problem(file, "environment", found(raw["environment"]), allowed))
    raise SettingsError(problems)


def shown(path: Path) -> str:
    """Return a path as messages show it: relative to the project or the current folder if it is inside."""
    absolute = path.resolve()
    inside = [folder for folder in (PROJECT, Path.cwd()) if absolute.is_relative_to(folder)]
    return str(absolute.relative_to(inside[0]) if inside else absolute)


def _read(path: Path, file: str, environment: str) -> dict[str, Any]:
    if not path.exists():
        names = " or ".join(found(each.stem) for each in sorted(ENVIRONMENTS.glob("*.toml")))
        asked = f"{found(environment)}, which has no file"
        choices = f"{names}, or the path of a settings file, which ends in .toml"
        raise SettingsError([Problem(file, "environment", asked, choices)])
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([Problem(file, "syntax", f"an error: {error}", "TOML 1.0")]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([Problem(file, "syntax", f"an error: {error}", "TOML 1.0 in UTF-8")]) from error
    except OSError as error:
        raise SettingsError(
            [Problem(file, "file", f"an error: {error.strerror}", "a readable file")]
        ) from error


def _problem(details: ErrorDetails, raw: dict[str, Any], file: str) -> Problem:
    context = details.get("ctx", {})
    location = details["loc"]
    if at := context.get("at"):
        location = tuple(at.split("."))
    node = node_at(location)
    value = found(_value_at(raw, location)) if at else found(details["input"])
    match details["type"]:
        case "not_allowed":
            allowed = str(context["allowed"])
        case "missing":
            value, allowed = "nothing", allowed_by(node, key_text(location))
        case "extra_forbidden":
            value, allowed = f"an unknown key, {value}", _known_keys(location)
        case _:
            allowed = allowed_by(node, key_text(location))
    if value == "null":
        value = "nothing"
    return Problem(file, key_text(location), value, allowed)


def _value_at(raw: Any, location: Sequence[str | int]) -> Any:
    """Return the value of a key; None for a key that is not set, of which a rule requires a value."""
    *tables, key = location
    for part in tables:
        raw = raw[part]
    return raw.get(key) if isinstance(raw, dict) else raw[key]


def _known_keys(location: Sequence[str | int]) -> str:
    parent: Schema = node_at(location[:-1])
    keys = [key for key in parent.get("properties", {}) if key != "environment"]
    nearest = get_close_matches(str(location[-1]), keys, n=1)
    return f'"{nearest[0]}" is the nearest key' if nearest else ", ".join(keys)
