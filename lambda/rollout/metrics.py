"""Metrics of one release during a rollout step, as counted by the routers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from distilled_router.env import METRICS_NAMESPACE
from distilled_router.release.gate import MINIMUM_ASKED

# The router's metric that counts the requests of each rate.
METRICS: Mapping[str, str] = {
    "error_rate": "RouterErrors",
    "fallback_rate": "Fallback",
    "invalid_output_rate": "InvalidOutput",
}


@dataclass(frozen=True)
class Count:
    """A count out of a total."""

    bad: float = 0.0
    of: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.bad + other.bad, self.of + other.of)

    @property
    def rate(self) -> float:
        """Return the count as a share of the total, from 0 to 1; 0 if the total is 0."""
        return self.bad / self.of if self.of else 0.0


@dataclass(frozen=True)
class ReleaseMetrics:
    """Metrics of one release in one step.

    Attributes:
        requests: number of requests, without those of callers who used up their allowance.
        counts: the failed requests and probes, by rate.
        model: total milliseconds of the model, and the number of its answers.
        probes: number of hold-out queries asked in addition.
        unasked: reason for each probe whose call failed; these are not among `probes`.
    """

    requests: float = 0.0
    counts: Mapping[str, Count] = field(default_factory=dict)
    model: Count = Count()
    probes: int = 0
    unasked: tuple[str, ...] = ()

    def __add__(self, other: ReleaseMetrics) -> ReleaseMetrics:
        names = {**self.counts, **other.counts}
        counts = {name: self.of(name) + other.of(name) for name in names}
        return ReleaseMetrics(
            requests=self.requests + other.requests,
            counts=counts,
            model=self.model + other.model,
            probes=self.probes + other.probes,
            unasked=self.unasked + other.unasked,
        )

    @property
    def lacks_probes(self) -> bool:
        """Return whether so many probes could not be asked that the others may not be representative."""
        return self.probes < MINIMUM_ASKED * (self.probes + len(self.unasked))

    def of(self, rate: str) -> Count:
        """Return the count of a rate; an empty one if there is none."""
        return self.counts.get(rate, Count())


@dataclass(frozen=True)
class RouterMetrics:
    """Reads CloudWatch metrics by release, from the start of a step to now.

    `owner` is the metrics' dimension `service`; `since` and `at` are epoch seconds.
    """

    cloudwatch: Any
    owner: str
    since: int
    at: int

    def of(self, release: str) -> ReleaseMetrics:
        """Return the metrics of one release."""
        # A fallback because of a caller's own use says nothing about the release.
        requests = self._total(release, "Requests")
        requests -= self._total(release, "CallerFallback") if requests else 0.0
        counts = {
            rate: Count(self._total(release, metric) if requests else 0.0, requests)
            for rate, metric in METRICS.items()
        }
        answers = self._total(release, "ModelLatency", "SampleCount") if requests else 0.0
        model = Count(self._total(release, "ModelLatency"), answers) if answers else Count()
        return ReleaseMetrics(requests, counts, model)

    def _total(self, release: str, metric: str, statistic: str = "Sum") -> float:
        """Return a metric's sum, or the number of its values, over one release's requests."""
        # CloudWatch stores whole minutes, so the minute in which the step began counts fully.
        start = datetime.fromtimestamp(self.since, UTC).replace(second=0, microsecond=0)
        points = self.cloudwatch.get_metric_statistics(
            Namespace=METRICS_NAMESPACE,
            MetricName=metric,
            Dimensions=[{"Name": "service", "Value": self.owner}, {"Name": "release", "Value": release}],
            StartTime=start,
            EndTime=datetime.fromtimestamp(self.at, UTC) + timedelta(minutes=1),
            Period=60 * max(1, -(-(self.at - self.since + 120) // 60)),
            Statistics=[statistic],
        )["Datapoints"]
        return float(sum(point[statistic] for point in points))
