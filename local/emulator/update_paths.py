"""DynamoDB's rule that no two paths of an UpdateExpression overlap, which MiniStack does not check.

DynamoDB refuses such a request with a ValidationException, whatever the item (DynamoDB developer guide,
"update expressions": a path may stand in one clause only).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from ministack.services import dynamodb

_CLAUSE = re.compile(r"(?<![#:\w])(SET|REMOVE|ADD|DELETE)\b", re.IGNORECASE)
# Arguments of functions: their commas separate no paths.
_ARGUMENTS = re.compile(r"\([^()]*\)")
_apply = dynamodb._apply_update_expression


def install() -> None:
    """Put the check before MiniStack's update of an item."""
    dynamodb._apply_update_expression = apply


def apply(
    item: Any, expression: str, values: Any, names: Mapping[str, str] | None, *more: Any
) -> tuple[Any, Any]:
    """Update an item. Raises ValueError for overlapping paths, which MiniStack answers as DynamoDB does."""
    for one, other in combinations(paths(expression, names or {}), 2):
        if one[: len(other)] == other or other[: len(one)] == one:
            shown = (f"[{', '.join(path)}]" for path in (one, other))
            raise ValueError(
                "Invalid UpdateExpression: Two document paths overlap with each other; must remove or "
                "rewrite one of these paths; path one: {}, path two: {}".format(*shown)
            )
    updated: tuple[Any, Any] = _apply(item, expression, values, names, *more)
    return updated


def paths(expression: str, names: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the paths that an expression changes, each as its parts."""
    while (simpler := _ARGUMENTS.sub("", expression)) != expression:
        expression = simpler
    for part in re.split(",", _CLAUSE.sub(",", expression)):
        # An action begins with its path.
        if words := re.split(r"[\s=]", part.strip(), maxsplit=1)[0]:
            yield [names.get(name, name) for name in re.findall(r"[^.\[\]]+", words)]
