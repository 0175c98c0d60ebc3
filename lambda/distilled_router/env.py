"""The environment variables of each function: the construct writes them, the handler reads them.

Each function has one frozen class here. Its fields carry the names of the settings; a field's variable is
its name in upper case: `poll_seconds` is `POLL_SECONDS`. A construct passes an instance to `Function`, and
the handler calls `read`:

>>> @dataclass(frozen=True, kw_only=True)
... class ExampleEnv(Env):
...     table_name: str
...     poll_seconds: int
>>> ExampleEnv.read({"TABLE_NAME": "releases", "POLL_SECONDS": "30"}).poll_seconds
30
>>> ExampleEnv(table_name="releases", poll_seconds=30).variables()
{'POLL_SECONDS': '30', 'TABLE_NAME': 'releases'}
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any, Self


class EnvError(ValueError):
    """A variable is missing or has a value that its field doesn't take."""


@dataclass(frozen=True, kw_only=True)
class Env:
    """The variables of one function.

    A field is a string, a whole number, a number, a flag, a dataclass or a mapping; the last two travel as
    JSON. An empty string travels as a variable without text.
    """

    def variables(self) -> dict[str, str]:
        """Return the variables by name, in alphabetical order."""
        found = {field.name.upper(): _text(getattr(self, field.name)) for field in fields(self)}
        return dict(sorted(found.items()))

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the variables of this function.

        Raises:
            EnvError: A variable without a default is missing, or a value doesn't fit its field. The message
                names the variable.
        """
        types = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in fields(cls):
            name = field.name.upper()
            if name in environ:
                values[field.name] = _value(name, environ[name], types[field.name])
            elif field.default is MISSING and field.default_factory is MISSING:
                raise EnvError(f"The environment variable {name} is missing; {cls.__name__} needs it.")
        return cls(**values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text]
        if kind in (str, int, float):
            return kind(text)
        data = json.loads(text)
        return kind(**data) if isinstance(kind, type) and is_dataclass(kind) else data
    except (KeyError, TypeError, ValueError) as error:
        raise EnvError(f"The environment variable {name} is {text!r}, expected {_expected(kind)}.") from error


def _expected(kind: Any) -> str:
    named = {bool: "true or false", int: "a whole number", float: "a number"}
    return named.get(kind) or f"JSON for {getattr(kind, '__name__', kind)}"
