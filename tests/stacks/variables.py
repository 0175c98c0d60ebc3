"""Find the variables that a function reads, in its code."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cdk_distilled_router.common.bundles import LAMBDA
from cdk_distilled_router.common.functions import MOST_BYTES, UNKNOWN_BYTES
from cdk_distilled_router.common.imports import imported
from distilled_router import env as env_module
from distilled_router.env import Env

# These read variables of Lambda or a platform: the Region, keys, certificates, the X-Ray daemon.
READ_BESIDES = {
    "distilled_router/env.py",
    "distilled_router/data/files.py",
    "distilled_router/release/wait_conditions.py",
    "router/handler.py",
    "router/xray.py",
}


def problems(handler: str, variables: Mapping[str, Any]) -> list[str]:
    """Return the problems of a function's variables, e.g. of `router.handler.handler`."""
    folder, _, entry = handler.partition(".handler.")
    kind = env_class(folder, entry)
    expected, given = set(kind.names().values()), set(variables)
    read = {"owner"}  # Powertools reads it
    for base in kind.__mro__:
        read |= fields_read(folder)[base.__name__]
    # A field with a default is left out where it has it.
    needed = {variable for name, variable in kind.names().items() if not hasattr(kind, name)}
    found = [f"{name} is missing" for name in sorted(needed - given)]
    found += [f"{name} is no field of {kind.__name__}" for name in sorted(given - expected)]
    found += [f"{kind.__name__}.{name} is never read" for name in sorted(kind.names().keys() - read)]
    if (size := _size(variables)) > MOST_BYTES:
        found.append(f"{size:,} bytes of variables")
    return found + [f"{path} reads os.environ" for path in _other_reads(folder)]


@cache
def env_class(folder: str, entry: str) -> type[Env]:
    """Return the class whose `read` an entry point calls, by itself, by functions of its module or on import.

    It is `Env` if there is no such call.
    """
    module = _tree(LAMBDA / folder / "handler.py")
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    left: list[ast.AST] = [functions[entry]]
    left += [node for node in module.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    seen, kinds = set[ast.AST](), set[str]()
    while left:
        node = left.pop()
        seen.add(node)
        kinds |= {kind for inner in ast.walk(node) if (kind := _read(inner))}
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        left += [functions[name] for name in names & functions.keys() if functions[name] not in seen]
    assert len(kinds) <= 1, f"{folder}.{entry} reads {', '.join(sorted(kinds))}: give it one class"
    return getattr(env_module, kinds.pop()) if kinds else Env


@cache
def fields_read(folder: str) -> Mapping[str, set[str]]:
    """The fields that the code of a bundle takes, by class. What holds an instance is called `env`, or
    `self.env` or `self._env` in a class whose constructor or fields name its type."""
    found = defaultdict[str, set[str]](set)
    for path in _files(folder):
        for scope in ast.walk(_tree(path)):
            if not isinstance(scope, ast.FunctionDef | ast.ClassDef):
                continue
            held = "self" if isinstance(scope, ast.ClassDef) else "env"
            for kind in _kinds_of_env(scope):
                found[kind] |= {
                    node.attr
                    for node in ast.walk(scope)
                    if isinstance(node, ast.Attribute) and _holds(node.value, held)
                }
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and (direct := _read(node.value)):
                found[direct].add(node.attr)
    return found


def _kinds_of_env(scope: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """Return the class of `env` in a function or class: that of the argument, the field or the value read."""
    if isinstance(scope, ast.ClassDef):
        for part in scope.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                yield from _kinds_of_env(part)
            if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) in {"env", "_env"}:
                yield ast.unparse(part.annotation)
        return
    arguments = [*scope.args.args, *scope.args.kwonlyargs]
    yield from (
        ast.unparse(a.annotation).removesuffix(" | None")
        for a in arguments
        if a.arg == "env" and a.annotation
    )
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target, value in _pairs(node):
                if ast.unparse(target) == "env" and (kind := _read(value)):
                    yield kind


def _pairs(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in node.targets:
        match target, node.value:
            case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                yield from zip(targets, values, strict=True)
            case _:
                yield target, node.value


def _holds(node: ast.expr, held: str) -> bool:
    return ast.unparse(node) in ({"self.env", "self._env"} if held == "self" else {"env"})


def _read(node: ast.AST) -> str | None:
    """Return the class whose `read` a node calls."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="read")) if name.endswith("Env"):
            return name
    return None


def _other_reads(folder: str) -> list[str]:
    """Return the modules of a bundle that read the environment themselves."""
    return sorted(
        name
        for path in _files(folder)
        if (name := path.relative_to(LAMBDA).as_posix()) not in READ_BESIDES
        if any(
            (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"})
            or (_read(node) and name != f"{folder}/handler.py")
            for node in ast.walk(_tree(path))
        )
    )


def _size(variables: Mapping[str, Any]) -> int:
    known = {name: _known(value) for name, value in variables.items()}
    return len(json.dumps(known, separators=(",", ":")).encode())


def _known(value: Any) -> str:
    match value:
        case str():
            return value
        case {"Fn::Join": [separator, list(parts)]}:
            return str(separator).join(map(_known, parts))
        case _:
            return "x" * UNKNOWN_BYTES


def _files(folder: str) -> list[Path]:
    return sorted(imported([f"{folder}.handler"], LAMBDA).files)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
