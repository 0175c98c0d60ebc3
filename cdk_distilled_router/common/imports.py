"""Find the modules of a folder that a Python module imports, without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Imports:
    """Modules and all their imports: files in the folder, and names of modules from elsewhere."""

    files: frozenset[Path]
    elsewhere: frozenset[str]


def imported(modules: Iterable[str], root: Path) -> Imports:
    """Return the imports of `modules`, followed through the packages in `root`.

    Imports in functions count, those under `if TYPE_CHECKING` don't. Imports by a name computed at run time
    are not found.
    """
    left, seen = list(modules), set[str]()
    files, elsewhere = set[Path](), set[str]()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if parent := name.rpartition(".")[0]:
            left.append(parent)
        path = module_file(name, root)
        if path is not None:
            files.add(path)
            package = name if path.name == "__init__.py" else parent
            left += _imports(path.read_bytes(), package)
        elif not (root / name.partition(".")[0]).is_dir():
            elsewhere.add(name)
    return Imports(frozenset(files), frozenset(elsewhere))


def module_file(name: str, root: Path) -> Path | None:
    """Return the file of a module in `root`; None if there is no such file or `__init__.py`."""
    base = root.joinpath(*name.split("."))
    return next(
        (path for path in (base / "__init__.py", base.with_name(f"{base.name}.py")) if path.is_file()), None
    )


@cache
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Return the names that a module in a package imports.

    For `from a import b` these are `a` and `a.b`, because `b` may be a module.
    """
    found: list[str] = []
    for node in _running(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                found += [base, *(f"{base}.{alias.name}" for alias in names)]
    return tuple(found)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below a node, except the blocks for type checkers."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(
                test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=other
            ):
                for statement in other:
                    yield statement
                    yield from _running(statement)
            case _:
                yield child
                yield from _running(child)
