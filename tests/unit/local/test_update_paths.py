"""The emulator refuses an update of an item that changes one attribute twice, as DynamoDB does."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.release.table import Releases


def update(releases: Releases, expression: str, names: dict[str, str], values: dict[str, Any]) -> Any:
    given = {"ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    return releases.table.update_item(
        Key={"id": "x"},
        UpdateExpression=expression,
        **{name: value for name, value in given.items() if value},
    )


@pytest.mark.parametrize(
    ("expression", "names", "values", "paths"),
    [
        ("SET #a = :v REMOVE #a", {"#a": "head"}, {":v": "1"}, "[head], path two: [head]"),
        ("SET #a = :v REMOVE head", {"#a": "head"}, {":v": "1"}, "[head], path two: [head]"),
        ("SET head = :v REMOVE head.sha256", {}, {":v": "1"}, "[head], path two: [head, sha256]"),
        ("SET head = if_not_exists(head, :v), head = :v", {}, {":v": "1"}, "[head], path two: [head]"),
    ],
)
def test_attribute_that_is_changed_twice_is_refused(
    releases: Releases, expression: str, names: dict[str, str], values: dict[str, Any], paths: str
) -> None:
    with pytest.raises(ClientError, match="Two document paths overlap") as refused:
        update(releases, expression, names, values)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert f"path one: {paths}" in str(refused.value)
    assert "Item" not in releases.table.get_item(Key={"id": "x"})


def test_different_attributes_are_changed(releases: Releases) -> None:
    expression = "SET texts = list_append(if_not_exists(texts, :none), :none), head = :v REMOVE heads"
    update(releases, expression, {}, {":v": "1", ":none": []})
    assert releases.table.get_item(Key={"id": "x"})["Item"] == {"id": "x", "texts": [], "head": "1"}
