"""Describe in words what a key of the settings allows, from the JSON Schema of the types."""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from stacks.settings.types import Settings

Schema = dict[str, Any]

_LONGEST = 80
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@cache
def schema() -> Schema:
    """Return the JSON Schema of the settings, including `environment`, which is not a key of the files."""
    return Settings.model_json_schema()


def resolved(node: Schema) -> Schema:
    """Return the node behind a `$ref` or a null alternative; keys beside these override the node's own."""
    for wrapper in ("$ref", "anyOf"):
        if wrapper in node:
            around = {key: value for key, value in node.items() if key != wrapper}
            return {**_inside(node[wrapper]), **around}
    return node


def _inside(wrapped: str | list[Schema]) -> Schema:
    if isinstance(wrapped, str):
        definition: Schema = schema()["$defs"][wrapped.rsplit("/", 1)[-1]]
        return definition
    return resolved(next(choice for choice in wrapped if choice.get("type") != "null"))


def node_at(location: Sequence[str | int]) -> Schema:
    """Return the schema of a key; empty for an unknown key."""
    node = schema()
    for part in location:
        if part == "[key]":
            return resolved(node.get("x-key", {}))
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or _value_node(node)
        node = resolved(node)
    return node


def _value_node(node: Schema) -> Schema:
    # A table with free keys, such as [tags]. `x-key` keeps the schema of its keys.
    patterns = node.get("patternProperties", {})
    values = next(iter(patterns.values()), None) or node.get("additionalProperties")
    return {**values, "x-key": node.get("propertyNames", {})} if isinstance(values, dict) else {}


def allowed_by(node: Schema, key: str = "") -> str:
    """Return what the node allows, as a phrase."""
    if words := node.get("x-allowed"):
        return str(words)
    if choices := node.get("enum") or ([node["const"]] if "const" in node else None):
        return (" or " if len(choices) < 4 else ", ").join(map(found, choices))
    match node.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("an integer" if kind == "integer" else "a number") + _limits(node)
        case "array":
            item = allowed_by(resolved(node.get("items", {})))
            return f"a list of {_many(node, 'Items', 'values')}, each {item}"
        case "object" if "properties" in node:
            return f"a table [{key}]" if key else "a table"
        case "object":
            return f"a table of {_many(node, 'Properties', 'keys with string values')}"
        case "string":
            return "a string"
    return "a value of another kind"


def _limits(node: Schema) -> str:
    low, above, high = node.get("minimum"), node.get("exclusiveMinimum"), node.get("maximum")
    if above is not None:
        return f" above {_plain(above)}" + (f", at most {_plain(high)}" if high is not None else "")
    if low is None:
        return f" of at most {_plain(high)}" if high is not None else ""
    return f" from {_plain(low)} to {_plain(high)}" if high is not None else f" of at least {_plain(low)}"


def _plain(number: float) -> str:
    return format(Decimal(repr(number)), "f")


def _many(node: Schema, what: str, plural: str) -> str:
    low, high = node.get(f"min{what}", 0), node.get(f"max{what}")
    if high is None:
        return plural
    return f"{low} to {high} {plural}" if low else f"up to {high} {plural}"


def key_text(location: Sequence[str | int]) -> str:
    """Return a key as people write it: `alarms.emails[0]`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            name = part if _BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            text += f".{name}" if text else name
    return text


def found(value: Any) -> str:
    """Return a value as TOML writes it, shortened."""
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
