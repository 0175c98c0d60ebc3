"""Fields that functions add to log messages."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path

from stacks.settings import PROJECT

# Python's logging raises KeyError for fields with these names, instead of logging the message.
TAKEN = {*vars(logging.makeLogRecord({})), "message", "asctime"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# Parameters of the call itself (logging.Logger.info).
OWN = {"exc_info", "stack_info", "stacklevel", "extra"}


def fields(source: str) -> Iterator[str]:
    """Return the fields that calls of a logger add, with their lines."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("logger"), attr=level)) if level in LEVELS:
                yield from (f"{k.arg} in line {node.lineno}" for k in node.keywords if k.arg not in OWN)


def taken(source: str) -> list[str]:
    """Return the fields with reserved names."""
    return [field for field in fields(source) if field.partition(" ")[0] in TAKEN]


def test_no_log_line_has_a_field_that_python_refuses() -> None:
    found: dict[Path, list[str]] = {}
    for path in (PROJECT / "lambda").rglob("*.py"):
        if wrong := taken(path.read_text(encoding="utf-8")):
            found[path.relative_to(PROJECT)] = wrong
    assert found == {}


def test_a_field_that_python_refuses_is_found() -> None:
    assert taken('logger.info("x", name=1, arn=2, exc_info=True)\nlogger.warning("x", module=3)\n') == [
        "name in line 1",
        "module in line 2",
    ]
