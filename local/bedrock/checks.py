"""Check parameters against a shape of botocore's service model, as the service does.

botocore checks only types, required members, minima and unions; the service also refuses wrong patterns,
lengths, maxima and enum values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from local.bedrock.errors import invalid

# The published patterns of job names can match a hyphen in two places, so matching takes exponential time: a
# second for 24 hyphens. These patterns match the same names, given the maximum length of 63.
_SAFE_PATTERNS = (
    (r"(-*[a-zA-Z0-9\+\-\.])*", r"[a-zA-Z0-9+.\-]*"),
    (r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9\+\-\.]){0,63}", r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*"),
    (r"[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}", r"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*"),
)
# Jobs with a judge use a task type that is missing from the published enum (amazon-bedrock-samples).
_UNPUBLISHED = {"EvaluationTaskType": ("General",)}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "blob": (bytes,),
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
}


@lru_cache(maxsize=512)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a shape's pattern, compiled in a form that can't take exponential time."""
    for published, safe in _SAFE_PATTERNS:
        pattern = pattern.replace(published, safe)
    return re.compile(pattern)


def check(shape: Shape, parameters: dict[str, Any]) -> None:
    """Raise a ValidationException that lists everything wrong with the parameters."""
    wrong = list(_problems(shape, parameters, ""))
    if wrong:
        count = f"{len(wrong)} validation error{'s' if len(wrong) > 1 else ''} detected: "
        raise invalid(count + "; ".join(wrong))


def _failed(value: Any, path: str, constraint: str) -> str:
    shown = "null" if value is None else f"{value!r:.200}".replace('"', "'")
    shown = shown if shown.startswith("'") else f"'{shown}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    expected = _TYPES.get(shape.type_name)
    if getattr(shape, "is_document_type", False):
        return
    wrong_type = expected and (
        not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected)
    )
    if wrong_type:
        yield _failed(value, path, f"Member must be of type {shape.type_name}")
        return
    if isinstance(shape, StructureShape):
        yield from _structure_problems(shape, value, path)
    elif isinstance(shape, ListShape):
        yield from _size_problems(shape, value, len(value), path, "length")
        for index, item in enumerate(value):
            yield from _problems(shape.member, item, f"{path}.{index + 1}.member")
    elif isinstance(shape, MapShape):
        yield from _size_problems(shape, value, len(value), path, "length")
        for key, item in value.items():
            yield from _problems(shape.key, key, f"{path}.key")
            yield from _problems(shape.value, item, f"{path}.{key}")
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _size_problems(shape, value, value, path, "value")
    elif shape.type_name in ("string", "blob"):
        yield from _size_problems(shape, value, len(value), path, "length")
        yield from _text_problems(shape, value, path)


def _structure_problems(shape: StructureShape, value: dict[str, Any], path: str) -> Iterator[str]:
    inside = f"{path}." if path else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield _failed(None, f"{inside}{name}", "Member must not be null")
    given = [name for name in value if name in shape.members and value[name] is not None]
    if getattr(shape, "is_tagged_union", False) and len(given) != 1:
        members = ", ".join(shape.members)
        yield _failed(sorted(given), path, f"Exactly one of these members must be set: {members}")
    for name in given:
        yield from _problems(shape.members[name], value[name], f"{inside}{name}")


def _size_problems(shape: Shape, value: Any, size: float, path: str, what: str) -> Iterator[str]:
    minimum, maximum = shape.metadata.get("min"), shape.metadata.get("max")
    if minimum is not None and size < minimum:
        yield _failed(value, path, f"Member must have {what} greater than or equal to {minimum}")
    if maximum is not None and size > maximum:
        yield _failed(value, path, f"Member must have {what} less than or equal to {maximum}")


def _text_problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    enum = shape.metadata.get("enum")
    if enum and value not in (*enum, *_UNPUBLISHED.get(shape.name, ())):
        yield _failed(value, path, f"Member must satisfy enum value set: [{', '.join(enum)}]")
    pattern = shape.metadata.get("pattern")
    # A text that is far too long has already been reported; matching it would take long.
    if pattern and isinstance(value, str) and len(value) <= 4096 and not compiled(pattern).fullmatch(value):
        yield _failed(value, path, f"Member must satisfy regular expression pattern: {pattern}")
