"""How long functions are, and how many parameters constructs take."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from stacks.settings import PROJECT

FOLDERS = ("cdk_distilled_router", "stacks", "lambda", "operate", "local")
MOST_LINES, MOST_PARAMETERS = 60, 7


def functions(*folders: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield all functions of some folders, each with its file and name."""
    for folder in folders:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {
                function: f"{owner.name}.{function.name}"
                for owner in ast.walk(tree)
                if isinstance(owner, ast.ClassDef)
                for function in owner.body
                if isinstance(function, ast.FunctionDef)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    yield f"{path.relative_to(PROJECT)} {names.get(node, node.name)}", node


def long(node: ast.FunctionDef) -> bool:
    """Return whether a function has too many lines."""
    return (node.end_lineno or node.lineno) - node.lineno + 1 > MOST_LINES


def wide(node: ast.FunctionDef) -> bool:
    """Return whether a construct's `__init__` has too many parameters besides scope and id."""
    names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    if node.name != "__init__" or names[1:3] not in (["scope", "construct_id"], ["app", "construct_id"]):
        return False
    return len(names) - 3 > MOST_PARAMETERS


def test_no_function_is_longer_than_a_screen() -> None:
    assert [name for name, node in functions(*FOLDERS) if long(node)] == []


def test_constructs_take_seven_parameters_at_most() -> None:
    assert [name for name, node in functions("cdk_distilled_router", "stacks") if wide(node)] == []


@pytest.mark.parametrize(("lines", "expected"), [(60, False), (61, True)])
def test_a_long_function_is_noticed(lines: int, expected: bool) -> None:
    (node,) = ast.parse("def long():\n" + "    pass\n" * (lines - 1)).body
    assert isinstance(node, ast.FunctionDef)
    assert long(node) is expected


@pytest.mark.parametrize(("parameters", "expected"), [(7, False), (8, True)])
def test_a_wide_construct_is_noticed(parameters: int, expected: bool) -> None:
    names = ", ".join(f"p{number}" for number in range(parameters))
    (node,) = ast.parse(f"def __init__(self, scope, construct_id, *, {names}): ...").body
    assert isinstance(node, ast.FunctionDef)
    assert wide(node) is expected
