"""The release's rise: its share of the requests grows step by step, watched by its own metrics.

Each share but the settled one carries an expiry. If this state machine dies between two steps, the router
goes back to the settled release by itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aws_lambda_powertools import Logger

from shared.clients import client, table
from shared.metrics import NAMESPACE
from shared.releases import LIVE, PROMOTING, RETIRED, Release, Releases, RouteChangedError
from shared.routes import Share
from shared.stages import StageResult, done, failed, waiting

logger = Logger()

# How much longer than its dwell time a partial share may live, for a slow step in between.
EXPIRY_MARGIN_SECONDS = 900


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
    try:
        return promote(str(event["release"]), releases, client("cloudwatch"), rollout, os.environ["NAME"])
    except RouteChangedError as error:
        return waiting(str(error), 1)


def promote(
    digest: str, releases: Releases, cloudwatch: Any, rollout: Rollout, name: str, now: float | None = None
) -> StageResult:
    """Judge the step that ends now, then take the next one; `done` once the release has all requests."""
    at = int(now or time.time())
    release = releases.get(digest)
    if release is None or release.is_final:
        return failed(f"release {digest} is not on its way any more")
    ends_at = release.step_at + rollout.dwell_seconds
    if release.step >= 0 and at < ends_at:
        return waiting(release.message, ends_at - at)
    if release.step >= 0:
        breach = _breach(cloudwatch, name, release, rollout, at)
        if breach:
            releases.drop_from_route(digest, f"release {digest} was taken back: {breach}")
            return failed(f"taken back at {rollout.steps[release.step]:.0%} of the requests: {breach}")
    following = release.step + 1
    if following == len(rollout.steps):
        return _settle(release, releases)
    return _raise_share(release, releases, rollout, following, at)


def _raise_share(release: Release, releases: Releases, rollout: Rollout, step: int, at: int) -> StageResult:
    route, part = releases.route(), rollout.steps[step]
    expires = at + rollout.dwell_seconds + EXPIRY_MARGIN_SECONDS
    candidate = Share(release=release.digest, endpoint=release.endpoint, share=part, expires_at=expires)
    shares = [candidate]
    if route.settled and route.settled.release != release.digest:
        settled = route.settled
        shares.append(Share(settled.release, settled.endpoint, 1.0 - part, expires_at=None))
    message = f"{part:.0%} of the requests"
    # The route first: a step that dies in between is taken again, and its share has an expiry. A release
    # that was superseded meanwhile gives its share back at once.
    releases.set_route(tuple(shares), after=route, reason=f"release {release.digest}: {message}")
    if not releases.transition(release.digest, PROMOTING, message, step=step, step_at=at):
        releases.drop_from_route(release.digest, f"release {release.digest} ended during its rise")
        return failed(f"release {release.digest} is not on its way any more")
    return waiting(message, rollout.dwell_seconds)


def _settle(release: Release, releases: Releases) -> StageResult:
    route = releases.route()
    previous = route.settled
    alone = Share(release.digest, release.endpoint, 1.0, expires_at=None)
    settled = releases.set_route((alone,), after=route, reason=f"release {release.digest} is live")
    if not releases.transition(release.digest, LIVE, "serves all requests"):
        before = (previous,) if previous else ()
        releases.set_route(before, after=settled, reason=f"release {release.digest} ended during its rise")
        return failed(f"release {release.digest} is not on its way any more")
    if previous and previous.release != release.digest:
        releases.update(previous.release, state=RETIRED, message=f"replaced by release {release.digest}")
    return done(f"release {release.digest} serves all requests")


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
