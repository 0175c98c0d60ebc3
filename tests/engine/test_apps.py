"""Another team's app needs few imports and few arguments."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

import cdk_distilled_router
import cdk_distilled_router.props
from tests.engine import apps

MOST_PROPERTIES = 7


class Counted(Exception):  # noqa: N818  # no error: it ends the synthesis once all is known
    """A construct and the number of arguments it was given."""


# An existing resource needs only its ARN.
MADE = [name for name, (kind, _) in apps.VARIANTS.items() if kind is not apps.ExistingStack]


@pytest.mark.parametrize("variant", MADE)
def test_a_construct_is_given_seven_properties_at_most(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(scope: cdk.Stack, construct_id: str, **properties: Any) -> None:
        raise Counted(len(properties))

    monkeypatch.setattr(apps, "DistillationJob", count)
    monkeypatch.setattr(apps, "ProvisionedThroughput", count)
    with pytest.raises(Counted) as counted:
        apps.declare(variant)
    assert 4 <= counted.value.args[0] <= MOST_PROPERTIES


def test_the_app_imports_the_public_constructs_and_nothing_else_of_ours() -> None:
    tree = ast.parse(Path(apps.__file__).read_text(encoding="utf-8"))
    imported = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    elsewhere = ("__future__", "aws_cdk", "collections", "dataclasses", "pathlib", "typing")
    ours = {name for module, name in imported if module.partition(".")[0] not in elsewhere}
    assert plain == {"copy", "json", "aws_cdk"}
    public = {
        (package.__name__, name)
        for package in (cdk_distilled_router, cdk_distilled_router.props)
        for name in package.__all__
    }
    assert {(module, name) for module, name in imported if name in ours} <= public
