"""Read a settings file, and report all its problems at once."""

import re
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
from stacks.settings.types import NAME_PATTERN, Settings

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


def load(environment: str, folder: Path = ENVIRONMENTS) -> Settings:
    """Return the settings in `<folder>/<environment>.toml`.

    Args:
        environment: name of the environment and of its file, without `.toml`.
        folder: folder of the settings files.

    Raises:
        SettingsError: the file is missing, isn't TOML, or has an invalid setting.

    >>> load("local").region
    'us-east-1'
    """
    file = f"{folder.name}/{environment}.toml"
    raw = _read(environment, folder, file)
    named_inside = "environment" in raw
    try:
        settings = Settings.model_validate({**raw, "environment": environment})
    except ValidationError as error:
        problems = [_problem(details, raw, file) for details in error.errors(include_url=False)]
    else:
        if not named_inside:
            return settings
        problems = []
    if named_inside:
        allowed = "nothing: the file's name is the environment"
        problems.append(Problem(file, "environment", found(raw["environment"]), allowed))
    raise SettingsError(problems)


def _read(environment: str, folder: Path, file: str) -> dict[str, Any]:
    existing = sorted(path.stem for path in folder.glob("*.toml"))
    if not re.fullmatch(NAME_PATTERN, environment) or environment not in existing:
        choices = (
            " or ".join(found(name) for name in existing) or f"a name with a file in {folder}, which has none"
        )
        asked = f"{found(environment)}, which has no file"
        raise SettingsError([Problem(file, "environment", asked, choices)])
    try:
        return tomllib.loads((folder / f"{environment}.toml").read_text(encoding="utf-8"))
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
