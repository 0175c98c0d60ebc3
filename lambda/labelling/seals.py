"""The seal of a labels' folder: its key is in the stack's table of requests."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from distilled_router.aws.objects import Seal

_NAMES = {"#seal": "seal", "#since": "since"}


def begin(table: Any, folder: str) -> Seal:
    """Return the folder's seal, and create it if the stack has none for it yet.

    Paid answers that an earlier stack left in the folder have another seal, or none. They are used if S3
    stored them before this one was created.
    """
    item = table.update_item(
        Key={"id": folder},
        UpdateExpression="SET #seal = if_not_exists(#seal, :seal), #since = if_not_exists(#since, :since)",
        ExpressionAttributeNames=_NAMES,
        ExpressionAttributeValues={":seal": secrets.token_hex(32), ":since": int(time.time())},
        ReturnValues="ALL_NEW",
    )["Attributes"]
    return _seal(item)


def read(table: Any, folder: str) -> Seal | None:
    """Return the folder's seal; None if its labelling was declared before there were seals."""
    item = table.get_item(Key={"id": folder}, ConsistentRead=True).get("Item")
    return _seal(item) if item else None


def _seal(item: Mapping[str, Any]) -> Seal:
    return Seal(str(item["seal"]), float(item["since"]))
