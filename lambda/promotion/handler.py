"""The release's rise: its share of the requests grows step by step, watched by its own metrics.

Each share but the settled one carries an expiry. If this state machine dies between two steps, the router
goes back to the settled release by itself. Each step is one transaction of route and release, so that a step
which is taken twice, or dies, is taken whole or not at all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from shared.clients import client, table
from shared.metrics import NAMESPACE
from shared.releases import LIVE, PROMOTING, Release, Releases, RouteChangedError
from shared.routes import Share
from shared.stages import StageResult, done, failed, patient, waiting

logger = Logger()

# How much longer than its dwell time a partial share may live, for a slow step in between.
EXPIRY_MARGIN_SECONDS = 900
RETRY_SECONDS = 30


@dataclass(frozen=True)
class Rollout:
    """The settings of a rise. Rates are of the candidate's own requests since the step began."""

    steps: tuple[float, ...]
    dwell_seconds: int
    minimum_requests: int
    maximum_rates: Mapping[str, float]

    @classmethod
    def from_json(cls, text: str) -> Rollout:
        """Read what the stack put into the environment variable ROLLOUT."""
        data = json.loads(text)
        return cls(
            tuple(data["steps"]),
            int(data["dwell_seconds"]),
            int(data["minimum_requests"]),
            data["maximum_rates"],
        )


def handler(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage "promotion": one step further, or back to nothing."""
    del context
    rollout = Rollout.from_json(os.environ["ROLLOUT"])
    releases = Releases(table(os.environ["TABLE_NAME"]))
    digest, name = str(event["release"]), os.environ["NAME"]
    try:
        return patient(lambda: promote(digest, releases, client("cloudwatch"), rollout, name), RETRY_SECONDS)
    except RouteChangedError as error:
        return waiting(str(error), 1)


def promote(
    digest: str, releases: Releases, cloudwatch: Any, rollout: Rollout, name: str, now: float | None = None
) -> StageResult:
    """Judge the step that ends now, then take the next one; `done` once the release has all requests."""
    at = int(now or time.time())
    release = releases.get(digest)
    if release and release.state == LIVE:
        return done(_serves_all(digest))  # asked again: the first answer was lost
    if release is None or release.is_final:
        return failed(_ended(digest))
    ends_at = release.step_at + rollout.dwell_seconds
    if release.step >= 0 and at < ends_at:
        return waiting(release.message, ends_at - at)
    if release.step >= 0:
        breach = _breach(cloudwatch, name, release, rollout, at)
        if breach:
            releases.take_back(digest, f"release {digest} was taken back: {breach}")
            return failed(f"taken back at {release.message}: {breach}")
    following = release.step + 1
    # The settings may have fewer steps than when the rise began.
    if following >= len(rollout.steps):
        return _settle(release, releases)
    return _raise_share(release, releases, rollout, following, at)


def _raise_share(release: Release, releases: Releases, rollout: Rollout, step: int, at: int) -> StageResult:
    route, part = releases.route(), rollout.steps[step]
    expires = at + rollout.dwell_seconds + EXPIRY_MARGIN_SECONDS
    candidate = Share(release=release.digest, endpoint=release.endpoint, share=part, expires_at=expires)
    shares = (candidate, *([replace(route.settled, share=1.0 - part)] if route.settled else []))
    message = f"{part:.0%} of the requests"
    moved = releases.move_with_route(
        release.digest, PROMOTING, message, shares, after=route, step=step, step_at=at
    )
    return waiting(message, rollout.dwell_seconds) if moved else failed(_ended(release.digest))


def _settle(release: Release, releases: Releases) -> StageResult:
    route = releases.route()
    previous = route.settled.release if route.settled else None
    alone = Share(release.digest, release.endpoint, 1.0, expires_at=None)
    moved = releases.move_with_route(
        release.digest,
        LIVE,
        "serves all requests",
        (alone,),
        after=route,
        retiring=previous if previous != release.digest else None,
    )
    return done(_serves_all(release.digest)) if moved else failed(_ended(release.digest))


def _serves_all(digest: str) -> str:
    return f"release {digest} serves all requests"


def _ended(digest: str) -> str:
    return f"release {digest} is not on its way any more"


def _breach(cloudwatch: Any, name: str, release: Release, rollout: Rollout, at: int) -> str | None:
    """Why the candidate must not go on, or None: too few requests say nothing against it."""
    total = _sum(cloudwatch, name, release, "Requests", at)
    if total < max(rollout.minimum_requests, 1):
        return None
    for metric, limit in rollout.maximum_rates.items():
        rate = _sum(cloudwatch, name, release, metric, at) / total
        if rate > limit:
            return f"{metric} is {rate:.1%} of {total:.0f} requests, allowed {limit:.1%}"
    return None


def _sum(cloudwatch: Any, name: str, release: Release, metric: str, at: int) -> float:
    # CloudWatch keeps minutes: the minute in which the step began counts whole.
    start = datetime.fromtimestamp(release.step_at, UTC).replace(second=0, microsecond=0)
    points = cloudwatch.get_metric_statistics(
        Namespace=NAMESPACE,
        MetricName=metric,
        Dimensions=[{"Name": "service", "Value": name}, {"Name": "release", "Value": release.digest}],
        StartTime=start,
        EndTime=datetime.fromtimestamp(at, UTC) + timedelta(minutes=1),
        Period=60 * max(1, -(-(at - release.step_at + 120) // 60)),
        Statistics=["Sum"],
    )["Datapoints"]
    return float(sum(point["Sum"] for point in points))
