"""The seal of a labels' folder: its key is in the stack's table of requests."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from distilled_router.aws.custom_resource import Event
from distilled_router.aws.objects import Seal

# A resource has this property if its functions write seals: since this version.
MARKER = "Seals"
# After an upgrade, invocations of the earlier version write for as long as a function may run: 15 minutes.
_OVERLAP_SECONDS = 900

_NAMES = {"#seal": "seal", "#since": "since"}


def begin(table: Any, folder: str, event: Event) -> Seal:
    """Return the folder's seal, and create it if the stack has none for it yet.

    Paid answers that an earlier stack left in the folder have another seal, or none. They are used if S3
    stored them before `since`: when the seal was created or, later, when a version without seals was last
    upgraded. A stack may return to such a version, whose answers are paid as well.
    """
    new, old = event.properties, event.old_properties
    is_upgrade = bool(old) and MARKER in new and MARKER not in old
    since = ":since" if is_upgrade else "if_not_exists(#since, :since)"
    at = int(time.time()) + _OVERLAP_SECONDS * is_upgrade
    item = table.update_item(
        Key={"id": folder},
        UpdateExpression=f"SET #seal = if_not_exists(#seal, :seal), #since = {since}",
        ExpressionAttributeNames=_NAMES,
        ExpressionAttributeValues={":seal": secrets.token_hex(32), ":since": at},
        ReturnValues="ALL_NEW",
    )["Attributes"]
    return _seal(item)


def read(table: Any, folder: str) -> Seal | None:
    """Return the folder's seal; None if its labelling was declared before there were seals."""
    item = table.get_item(Key={"id": folder}, ConsistentRead=True).get("Item")
    return _seal(item) if item else None


def _seal(item: Mapping[str, Any]) -> Seal:
    return Seal(str(item["seal"]), float(item["since"]))
