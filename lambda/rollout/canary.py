"""What a step of a rise has shown of a release, and whether that speaks against it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from distilled_router.env import METRICS_NAMESPACE
from distilled_router.release.rollout import Rollout

# Less is no matter, whatever the ratio.
LEAST_SLOWER_MS = 50.0


@dataclass(frozen=True)
class Count:
    """How many of so many."""

    bad: float = 0.0
    of: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.bad + other.bad, self.of + other.of)

    @property
    def rate(self) -> float:
        """From 0 to 1; 0 of none."""
        return self.bad / self.of if self.of else 0.0


@dataclass(frozen=True)
class Evidence:
    """One release in one step: requests that routers counted, and probes.

    `counts` is by metric. `model` is the model's time: milliseconds in sum, of so many answers. `probes` is
    how many questions were asked besides.
    """

    requests: float = 0.0
    counts: Mapping[str, Count] = field(default_factory=dict)
    model: Count = Count()
    probes: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        names = {**self.counts, **other.counts}
        counts = {name: self.of(name) + other.of(name) for name in names}
        return Evidence(
            self.requests + other.requests, counts, self.model + other.model, self.probes + other.probes
        )

    def of(self, metric: str) -> Count:
        """What is known by a metric."""
        return self.counts.get(metric, Count())


@dataclass(frozen=True)
class Numbers:
    """What routers counted by release, from a step's beginning to now. `name` is the metrics' `service`."""

    cloudwatch: Any
    name: str
    since: int
    at: int

    def of(self, release: str, rollout: Rollout) -> Evidence:
        """What they counted of one release's requests."""
        requests = self._total(release, "Requests")
        counts = {
            metric: Count(self._total(release, metric) if requests else 0.0, requests)
            for metric in rollout.maximum_rates
        }
        answers = self._total(release, "ModelLatency", "SampleCount") if requests else 0.0
        model = Count(self._total(release, "ModelLatency"), answers) if answers else Count()
        return Evidence(requests, counts, model)

    def _total(self, release: str, metric: str, statistic: str = "Sum") -> float:
        """A metric's sum, or the number of its values, of one release's requests."""
        # CloudWatch keeps minutes: the minute in which the step began counts whole.
        start = datetime.fromtimestamp(self.since, UTC).replace(second=0, microsecond=0)
        points = self.cloudwatch.get_metric_statistics(
            Namespace=METRICS_NAMESPACE,
            MetricName=metric,
            Dimensions=[{"Name": "service", "Value": self.name}, {"Name": "release", "Value": release}],
            StartTime=start,
            EndTime=datetime.fromtimestamp(self.at, UTC) + timedelta(minutes=1),
            Period=60 * max(1, -(-(self.at - self.since + 120) // 60)),
            Statistics=[statistic],
        )["Datapoints"]
        return float(sum(point[statistic] for point in points))


def breach(candidate: Evidence, serving: Evidence | None, rollout: Rollout) -> str | None:
    """Why the candidate must not go on, or None: too little evidence says nothing against it."""
    for metric, limit in rollout.maximum_rates.items():
        mine = candidate.of(metric)
        if not _is_enough(mine.of, candidate, rollout):
            continue
        if mine.rate > limit:
            return f"{metric} is {_told(mine, candidate)}, allowed {limit:.1%}"
        if serving is None or not _is_enough(serving.of(metric).of, serving, rollout):
            continue
        theirs = serving.of(metric)
        if _surely_more(mine, theirs) > rollout.worse_by:
            return (
                f"{metric} is {_told(mine, candidate)}, and {_told(theirs, serving)} of what serves; "
                f"allowed {rollout.worse_by:.1%} more"
            )
    return _slower(candidate, serving, rollout) if serving else None


def _is_enough(requests: float, evidence: Evidence, rollout: Rollout) -> bool:
    """Whether there are enough, or probes among them: then there are as many as could be asked."""
    return requests >= rollout.least or requests > evidence.requests


def _told(count: Count, evidence: Evidence) -> str:
    probes = f" and {evidence.probes} probes" if evidence.probes and count.of > evidence.requests else ""
    return f"{count.rate:.1%} of {evidence.requests:.0f} requests{probes}"


def _slower(candidate: Evidence, serving: Evidence, rollout: Rollout) -> str | None:
    """Whether the candidate's model takes much longer than the one that serves. What routers remember takes
    no time at all, so that only what models took is compared."""
    for evidence in (candidate, serving):
        asked = evidence.requests + evidence.probes
        if not evidence.model.of or not _is_enough(asked, evidence, rollout):
            return None
    mine, theirs = candidate.model.rate, serving.model.rate
    if mine - theirs <= LEAST_SLOWER_MS or mine <= theirs * (1 + rollout.slower_by):
        return None
    return (
        f"its model takes {mine:.0f} ms, and that of what serves {theirs:.0f} ms; allowed "
        f"{1 + rollout.slower_by:.3g} times as long"
    )


def _surely_more(mine: Count, theirs: Count) -> float:
    """By how much more one rate is than the other, at least, at 95 % confidence."""
    spread = sum(count.rate * (1 - min(count.rate, 1)) / count.of for count in (mine, theirs))
    return mine.rate - theirs.rate - 1.96 * math.sqrt(spread)
