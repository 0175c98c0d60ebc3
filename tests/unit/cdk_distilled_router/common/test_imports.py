"""Imports are found by reading: through packages, inside functions, relative ones, none for types only."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdk_distilled_router.common.imports import imported


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three packages, one of them without `__init__.py`."""
    files = {
        "plain/start.py": "import json\nfrom plain import one\nfrom full.deep import word\n",
        "plain/one.py": "def late():\n    import full.late\n    from boto3.session import Session\n",
        "plain/unused.py": "",
        "full/__init__.py": "from .first import thing\n",
        "full/first.py": "from . import second\nfrom .deep.inner import x\n",
        "full/second.py": "",
        "full/late.py": "try:\n    from full import tried\nexcept ImportError:\n    pass\n",
        "full/tried.py": "",
        "full/deep/__init__.py": "word = 1\n",
        "full/deep/inner.py": "from ..up import y\nfrom .. import upper\n",
        "full/up.py": "",
        "full/upper.py": "",
        "typed/start.py": (
            "import typing\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from plain import unused\nelse:\n    from full import second\n"
            "if typing.TYPE_CHECKING:\n    import plain.unused\n"
        ),
        "round/a.py": "from round import b\n",
        "round/b.py": "from round import a\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def files(root: Path, *modules: str) -> set[str]:
    return {path.relative_to(root).as_posix() for path in imported(modules, root).files}


def test_imports_are_followed_wherever_they_stand(root: Path) -> None:
    assert files(root, "plain.start") == {
        *("plain/start.py", "plain/one.py"),
        *("full/__init__.py", "full/first.py", "full/second.py", "full/late.py", "full/tried.py"),
        *("full/deep/__init__.py", "full/deep/inner.py", "full/up.py", "full/upper.py"),
    }


def test_a_module_brings_the_packages_that_it_lies_in(root: Path) -> None:
    assert {"full/__init__.py", "full/deep/__init__.py"} <= files(root, "full.deep.inner")


def test_what_only_a_type_checker_reads_counts_for_nothing(root: Path) -> None:
    found = files(root, "typed.start")

    assert "plain/unused.py" not in found
    assert "full/second.py" in found


def test_modules_may_import_each_other(root: Path) -> None:
    assert files(root, "round.a") == {"round/a.py", "round/b.py"}


def test_what_the_folder_does_not_hold_is_named(root: Path) -> None:
    assert imported(["plain.start"], root).elsewhere == {
        *("json", "boto3", "boto3.session", "boto3.session.Session"),
    }
