"""Custom resource ReleaseWait: registers a WaitCondition's handle with the release that its stack awaits."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from shared.clients import table
from shared.custom_resource import Event, answer, truth
from shared.releases import Releases
from shared.waits import Waits, Window

logger = Logger()

# The rule that calls `tick` runs every ten minutes; a window is ended by the second call before its time.
MARGIN_SECONDS = 1500


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    releases_table = table(os.environ["TABLE_NAME"])
    return handle(Event.parse(event), Waits(releases_table), Releases(releases_table), time.time())


def tick(event: Mapping[str, Any], context: Any) -> dict[str, int]:
    """Every ten minutes: end windows whose time runs out, and those whose signal was lost."""
    del event, context
    releases_table = table(os.environ["TABLE_NAME"])
    return {"ended": Waits(releases_table).settle(Releases(releases_table), MARGIN_SECONDS)}


def handle(event: Event, waits: Waits, releases: Releases, now: float) -> dict[str, Any]:
    """Register the window, and end it at once where its release has ended already; forget it on Delete."""
    digest, number = str(event.properties["Digest"]), int(event.properties["Window"])
    physical_id = f"{event.properties['Owner']}-{digest}-wait-{number}"
    if event.is_delete:
        if event.physical_id == physical_id:
            waits.remove(digest, number)
        return answer(str(event.physical_id))
    ends_at = int(now) + int(event.properties["Seconds"])
    last = truth(event.properties["Last"])
    waits.register(Window(digest, number, last, str(event.properties["Handle"]), ends_at))
    waits.settle(releases)
    return answer(physical_id)
