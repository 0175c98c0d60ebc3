"""Custom resource ReleaseWait: register a wait condition's handle with the release that the stack awaits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import table
from distilled_router.aws.custom_resource import Event, answer, answer_event, is_true
from distilled_router.env import ReleaseWaitEnv
from distilled_router.release.table import Releases
from distilled_router.release.wait_conditions import WaitConditions, Window

logger = Logger()


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request, env = Event.parse(event), ReleaseWaitEnv.read()
    releases_table = table(env.table_name)
    waits, releases = WaitConditions(releases_table, env.owner), Releases(releases_table, env.owner)
    return answer_event(request, lambda each: handle(each, waits, releases, time.time()))


def tick(event: Mapping[str, Any], context: Any) -> dict[str, int]:
    """Signal expiring wait conditions, and those whose signal was lost. A schedule calls this.

    A wait condition is signalled `margin_seconds` before its timeout, longer than two runs of the schedule.
    """
    del event, context
    env = ReleaseWaitEnv.read()
    releases_table, margin = table(env.table_name), env.margin_seconds
    waits, releases = WaitConditions(releases_table, env.owner), Releases(releases_table, env.owner)
    return {"ended": waits.signal(releases, margin)}


def handle(event: Event, waits: WaitConditions, releases: Releases, now: float) -> dict[str, Any]:
    """Register the wait condition, and signal it if its release has already ended; remove it on Delete."""
    window = Window(
        digest=str(event.properties["Digest"]),
        number=int(event.properties["Window"]),
        last=is_true(event.properties["Last"]),
        url=str(event.properties["Handle"]),
        ends_at=int(now) + int(event.properties["Seconds"]),
        holdout=str(event.properties.get("Holdout", "")),
    )
    physical_id = f"{event.properties['Owner']}-{window.name.replace('@', '-wait-')}"
    if event.is_delete:
        if event.physical_id == physical_id:
            waits.remove(window.name)
        return answer(str(event.physical_id))
    waits.register(window)
    waits.signal(releases)
    return answer(physical_id)
