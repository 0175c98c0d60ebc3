"""Decide which paid resources the releases of an owner need. It only reads, and deletes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distilled_router.aws import executions
from distilled_router.bedrock import throughput
from distilled_router.release.claimed import Found
from distilled_router.release.route import Route
from distilled_router.release.table import LIVE, RETIRED, Release, Releases

MOVING = "a release is moving to it"
IN_PROGRESS = "its release is in progress"
# A person damaged the release's item, so that nobody can tell whether it still runs.
DAMAGED = "its release is in progress, but names no execution: repair or delete its item in the table"
# A time that is further ahead is damage, and would not pass soon.
AHEAD_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Needs:
    """What the releases of an owner need.

    Attributes:
        releases: the releases of one owner.
        stepfunctions: a client.
        keep_releases: how many good releases to keep for rollback, besides the live one.
        throughput_name: name of the provisioned throughput in the settings; empty on demand.
        now: returns epoch seconds.
    """

    releases: Releases
    stepfunctions: Any
    keep_releases: int
    throughput_name: str
    now: Callable[[], float] = time.time

    def by_digest(self, known: Sequence[Release], route: Route) -> dict[str, str]:
        """Return why endpoint and model must stay, by digest, for every release that needs them."""
        needed = {release.digest: in_progress(release) for release in known if not release.is_final}
        needed |= dict.fromkeys(route.digests(), "named by the route")
        live = [release for release in known if release.state == LIVE]
        if live:
            # An operator who switches it off by an empty route may switch it on again.
            needed.setdefault(max(live, key=self._updated).digest, "went live last")
        good = [
            release for release in known if release.state in {LIVE, RETIRED} and release.digest not in needed
        ]
        good.sort(key=self._updated, reverse=True)
        return needed | {release.digest: "kept for rollback" for release in good[: self.keep_releases]}

    def of_throughput(self, item: Found, known: Sequence[Release]) -> str | None:
        """Return why throughput must stay, or None.

        A release is live before it buys or moves throughput, so it counts as in progress until its execution
        has ended. The route is read after that: an execution that has ended has moved the route.
        """
        names = {item.name, throughput.created_as(item.summary, item.tags)}
        wanted = self.throughput_name in names
        moving = [r for r in known if (wanted or r.throughput in names) and self._is_open(r)]
        if any(release.execution for release in moving):
            return MOVING
        route = self.releases.effective_route()
        if any(share.endpoint == item.arn for share in route.shares):
            return "named by the route"
        live = [release for release in known if release.state == LIVE]
        if wanted and live and not route.shares and max(live, key=self._updated).endpoint == item.arn:
            # An operator switched it off by an empty route, and may switch it on again.
            return "went live last"
        return DAMAGED if moving else None

    def _is_open(self, release: Release) -> bool:
        """Return whether an execution still works on the release, which may be live already."""
        if release.state == LIVE:
            return executions.is_open(executions.find(self.stepfunctions, release.execution))
        return not release.is_final

    def _updated(self, release: Release) -> int:
        """Return when the release was updated; a damaged time comes first of all."""
        return release.updated_at if release.updated_at <= self.now() + AHEAD_SECONDS else 0


def in_progress(release: Release) -> str:
    """Return why what a release in progress uses must stay."""
    return IN_PROGRESS if release.execution else DAMAGED
