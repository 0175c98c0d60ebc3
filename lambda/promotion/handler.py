"""The release's rise: its share of the requests grows step by step, watched by its own metrics.

Each share but the settled one carries an expiry. If this state machine dies between two steps, the router
goes back to the settled release by itself. Each step is one transaction of route and release, so that a step
which is taken twice, or dies, is taken whole or not at all.
"""

from __future__ import annotations

import json
import math
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
# Less is no matter, whatever the ratio.
LEAST_SLOWER_MS = 50.0


@dataclass(frozen=True)
class Rollout:
    """The settings of a rise. Rates are of the candidate's own requests since the step began; `worse_by` and
    `slower_by` hold them against those of what serves, in the same time."""

    steps: tuple[float, ...]
    dwell_seconds: int
    minimum_requests: int
    maximum_rates: Mapping[str, float]
    worse_by: float = 0.02
    slower_by: float = 0.5

    @classmethod
    def from_json(cls, text: str) -> Rollout:
        """Read what the stack put into the environment variable ROLLOUT."""
        data: dict[str, Any] = json.loads(text)
        return cls(**{**data, "steps": tuple(data["steps"])})


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
        settled = releases.route().settled
        serving = settled.release if settled and settled.release != digest else None
        breach = _breach(Numbers(cloudwatch, name, release.step_at, at), digest, serving, rollout)
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


@dataclass(frozen=True)
class Numbers:
    """What routers counted by release, from the step's beginning to now."""

    cloudwatch: Any
    name: str
    since: int
    at: int

    def total(self, release: str, metric: str, statistic: str = "Sum") -> float:
        """A metric's sum, or the number of its values, of one release's requests."""
        # CloudWatch keeps minutes: the minute in which the step began counts whole.
        start = datetime.fromtimestamp(self.since, UTC).replace(second=0, microsecond=0)
        points = self.cloudwatch.get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName=metric,
            Dimensions=[{"Name": "service", "Value": self.name}, {"Name": "release", "Value": release}],
            StartTime=start,
            EndTime=datetime.fromtimestamp(self.at, UTC) + timedelta(minutes=1),
            Period=60 * max(1, -(-(self.at - self.since + 120) // 60)),
            Statistics=[statistic],
        )["Datapoints"]
        return float(sum(point[statistic] for point in points))

    def mean(self, release: str, metric: str) -> float | None:
        """A metric's mean, or None where it has no values."""
        count = self.total(release, metric, "SampleCount")
        return self.total(release, metric) / count if count else None


def _breach(numbers: Numbers, digest: str, serving: str | None, rollout: Rollout) -> str | None:
    """Why the candidate must not go on, or None: too few requests say nothing against it."""
    least = max(rollout.minimum_requests, 1)
    total = numbers.total(digest, "Requests")
    if total < least:
        return None
    theirs = numbers.total(serving, "Requests") if serving else 0.0
    for metric, limit in rollout.maximum_rates.items():
        rate = numbers.total(digest, metric) / total
        if rate > limit:
            return f"{metric} is {rate:.1%} of {total:.0f} requests, allowed {limit:.1%}"
        if serving is None or theirs < least:
            continue
        other = numbers.total(serving, metric) / theirs
        if _surely_more(rate, total, other, theirs) > rollout.worse_by:
            return (
                f"{metric} is {rate:.1%} of {total:.0f} requests, and {other:.1%} of {theirs:.0f} of what "
                f"serves; allowed {rollout.worse_by:.1%} more"
            )
    return _slower(numbers, digest, serving, rollout) if serving and theirs >= least else None


def _slower(numbers: Numbers, digest: str, serving: str, rollout: Rollout) -> str | None:
    """Whether the candidate's model takes much longer than the one that serves. What routers remember takes
    no time at all, so that only what models took is compared."""
    mine, theirs = numbers.mean(digest, "ModelLatency"), numbers.mean(serving, "ModelLatency")
    if mine is None or theirs is None or mine - theirs <= LEAST_SLOWER_MS:
        return None
    if mine <= theirs * (1 + rollout.slower_by):
        return None
    return (
        f"its model takes {mine:.0f} ms, and that of what serves {theirs:.0f} ms; allowed "
        f"{1 + rollout.slower_by:.3g} times as long"
    )


def _surely_more(rate: float, of: float, other: float, of_other: float) -> float:
    """By how much more a rate is than another one, at least, at 95 % confidence."""
    spread = math.sqrt(rate * (1 - min(rate, 1)) / of + other * (1 - min(other, 1)) / of_other)
    return rate - other - 1.96 * spread
