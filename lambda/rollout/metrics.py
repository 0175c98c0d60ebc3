"""Metrics of one release during a rollout, as counted by the routers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from distilled_router.env import METRICS_NAMESPACE

# The router's metric of each rate: 0 or 1 for each query that a process answers for the first time.
METRICS: Mapping[str, str] = {
    "error_rate": "CanaryErrors",
    "fallback_rate": "CanaryFallback",
    "invalid_output_rate": "CanaryInvalidOutput",
}
# 1 for the first query that a process counts for a release, 0 for each of the others.
PROCESSES = "CanaryProcesses"
# GetMetricStatistics returns at most 1,440 points; a period is a multiple of an hour for data older than 63
# days (CloudWatch API reference). A rollout takes 34 days at most.
_MOST_POINTS, _HOUR = 1_440, 3_600


@dataclass(frozen=True)
class Count:
    """A count out of a total."""

    bad: float = 0.0
    of: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.bad + other.bad, self.of + other.of)

    def __mul__(self, part: float) -> Count:
        return Count(self.bad * part, self.of * part)

    @property
    def rate(self) -> float:
        """Return the count as a share of the total, from 0 to 1; 0 if the total is 0."""
        return self.bad / self.of if self.of else 0.0


@dataclass(frozen=True)
class ReleaseMetrics:
    """Metrics of one release.

    Attributes:
        counts: the failed queries, by rate.
        model: total milliseconds of the model, and the number of its answers.
        processes: that counted requests. Each counts a query once, so this is how often one query counts at
            most; 1 for probes.
    """

    counts: Mapping[str, Count] = field(default_factory=dict)
    model: Count = Count()
    processes: float = 1.0

    def __add__(self, other: ReleaseMetrics) -> ReleaseMetrics:
        names = {**self.counts, **other.counts}
        counts = {name: self.of(name) + other.of(name) for name in names}
        return ReleaseMetrics(counts, self.model + other.model)

    def __mul__(self, part: float) -> ReleaseMetrics:
        return ReleaseMetrics({name: count * part for name, count in self.counts.items()}, self.model * part)

    def of(self, rate: str) -> Count:
        """Return the count of a rate; an empty one if there is none."""
        return self.counts.get(rate, Count())

    def spread(self, rate: str) -> Count:
        """Return the count of a rate as if one query, which every process sees, had failed once only.

        That a frequent query fails is chance, and counts in each process.
        """
        found = self.of(rate)
        return Count(max(found.bad - (self.processes - 1), 0.0), found.of)


NOTHING = ReleaseMetrics()
"""The metrics of a release that was asked nothing."""


@dataclass(frozen=True)
class RouterMetrics:
    """Reads CloudWatch metrics by release, from the start of a rollout to now.

    `owner` is the metrics' dimension `service`; `since` and `at` are epoch seconds.
    """

    cloudwatch: Any
    owner: str
    since: int
    at: int

    def of(self, release: str) -> ReleaseMetrics:
        """Return the metrics of one release."""
        counts = {rate: self._total(release, metric) for rate, metric in METRICS.items()}
        processes = self._total(release, PROCESSES).bad
        return ReleaseMetrics(counts, self._total(release, "ModelLatency"), max(processes, 1.0))

    def _total(self, release: str, metric: str) -> Count:
        """Return the sum and the number of a metric's values for one release."""
        # CloudWatch stores whole minutes, so the minute in which the rollout began counts fully.
        start = datetime.fromtimestamp(self.since, UTC).replace(second=0, microsecond=0)
        end = datetime.fromtimestamp(self.at, UTC) + timedelta(minutes=1)
        minutes = (end - start).total_seconds() / 60
        points = self.cloudwatch.get_metric_statistics(
            Namespace=METRICS_NAMESPACE,
            MetricName=metric,
            Dimensions=[{"Name": "service", "Value": self.owner}, {"Name": "release", "Value": release}],
            StartTime=start,
            EndTime=end,
            Period=60 if minutes < _MOST_POINTS else _HOUR,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]
        return Count(
            float(sum(point["Sum"] for point in points)), float(sum(point["SampleCount"] for point in points))
        )
