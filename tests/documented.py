"""The examples of the documents: in the docstrings of public names, and in docs/resources.md."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache

from constructs import Construct

import cdk_distilled_router as library
from cdk_distilled_router import props
from stacks.settings import PROJECT

# What an example may use without saying so: a construct's scope, the CDK's modules and a bucket.
_PRELUDE = """\
import sys
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

import cdk_distilled_router as library
from cdk_distilled_router import *
from cdk_distilled_router.props import *
from search import SearchStack

assert library.__file__.startswith(sys.prefix), library.__file__
app = cdk.App()
"""
_STACK = """

class Stack(cdk.Stack):
    def __init__(self) -> None:
        super().__init__(app, "{name}".replace("_", "-"))
        bucket = s3.Bucket.from_bucket_name(self, "Bucket", "search-team-data")
{code}

stack = Stack()
"""
_CHECK = 'assert any(isinstance(found, library.{name}) for found in stack.node.find_all()), "{name}"\n'
_END = """
SearchStack(app, "Search", env=cdk.Environment(account="111122223333", region="us-east-1"))
app.synth()
"""


def constructs() -> list[str]:
    """Return the names of all public constructs."""
    found = ((name, getattr(library, name)) for name in library.__all__)
    return [name for name, each in found if inspect.isclass(each) and issubclass(each, Construct)]


def example(name: str) -> str | None:
    """Return the example in the docstring of a public name; None if it has none."""
    text = f"{inspect.getdoc(getattr(library, name))}\n"
    found = re.search(r"^Example::\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return textwrap.dedent(found[1]).strip() + "\n" if found else None


@cache
def examples() -> Mapping[str, str]:
    """Return the examples of all public names by name."""
    return {name: code for name in library.__all__ if (code := example(name))}


def stacks() -> list[str]:
    """Return the names of the stacks of `app`, one for each example that declares something."""
    return [name.replace("_", "-") for name in examples() if name != "use_task"]


def whole_app() -> str:
    """Return the app in docs/resources.md."""
    page = (PROJECT / "docs" / "resources.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (found,) = [block for block in blocks if "class SearchStack" in block]
    return str(found)


def app() -> str:
    """Return an app with a stack for each example, after those that it uses, and with `whole_app`."""
    parts = [_PRELUDE, examples()["use_task"]]
    for name in [each for each in examples() if each != "use_task"]:
        code = "".join(examples()[each] for each in [*_before(name), name])
        parts.append(_STACK.format(name=name, code=textwrap.indent(code, " " * 8)))
        if name in constructs():
            parts.append(_CHECK.format(name=name))
    return "".join([*parts, _END])


def _before(name: str) -> list[str]:
    """Return the examples that an example uses the variables of, in order."""
    found: list[str] = []
    for variable in sorted(_used(examples()[name]) - {"bucket"}):
        (source,) = [each for each, code in examples().items() if variable in _assigned(code)]
        found += [each for each in [*_before(source), source] if each not in found]
    return found


def _names(code: str) -> Iterator[ast.Name]:
    return (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name))


def _assigned(code: str) -> set[str]:
    return {name.id for name in _names(code) if isinstance(name.ctx, ast.Store)}


def _used(code: str) -> set[str]:
    """Return the variables that code uses and doesn't assign, besides what the prelude has."""
    known = {"self", "cdk", "dynamodb", "iam", "kms", "s3", *library.__all__, *props.__all__, *dir(builtins)}
    return {name.id for name in _names(code)} - _assigned(code) - known
