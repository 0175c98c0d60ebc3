"""The condition key `dynamodb:LeadingKeys`, which MiniStack does not give to IAM.

Its values are the partition keys of all items in a request. AWS does not say whether the check of one item of
a transaction sees the keys of the others, so here each check sees all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core import iam_actions
from ministack.services import dynamodb

LEADING_KEYS = "dynamodb:LeadingKeys"
_service_context = iam_actions.dynamodb_service_context


def install() -> None:
    """Put this context in place of MiniStack's."""
    iam_actions.dynamodb_service_context = context


def context(body: bytes) -> dict[str, Any]:
    """Return the condition keys of a request to DynamoDB."""
    found: dict[str, Any] = _service_context(body)
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return found
    keys = sorted(set(_keys(request))) if isinstance(request, dict) else []
    return {**found, LEADING_KEYS: keys} if keys else found


def _keys(request: Mapping[str, Any]) -> Iterator[str]:
    for part in _parts(request):
        table = dynamodb._tables.get(str(part.get("TableName", "")).rpartition("/")[2]) or {}
        name = next(
            (key["AttributeName"] for key in table.get("KeySchema", ()) if key["KeyType"] == "HASH"), ""
        )
        value = (part.get("Key") or part.get("Item") or {}).get(name)
        if isinstance(value, dict):
            yield from map(str, value.values())


def _parts(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a request on one item, or the parts of a transaction."""
    yield request
    for item in request.get("TransactItems") or ():
        yield from (part for part in item.values() if isinstance(part, dict))
