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
# 1 for each query that a process answers for the second time.
REPEATED = "CanaryRepeated"
# 1 for each request that the release's model did not answer, however often its query was asked.
FALLBACK = "Fallback"
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
        processes: that counted requests. Each counts a query once, so this is how often one query counts at
            most; 1 for probes.
        repeated: queries that a process answered at least twice; each process counts its own.
        requests: fallbacks among all requests, equal ones too.
    """

    counts: Mapping[str, Count] = field(default_factory=dict)
    processes: float = 1.0
    repeated: float = 0.0
    requests: Count = field(default_factory=Count)

    def __add__(self, other: ReleaseMetrics) -> ReleaseMetrics:
        names = {**self.counts, **other.counts}
        counts = {name: self.of(name) + other.of(name) for name in names}
        return ReleaseMetrics(counts)

    def __mul__(self, part: float) -> ReleaseMetrics:
        return ReleaseMetrics({name: count * part for name, count in self.counts.items()})

    def of(self, rate: str) -> Count:
        """Return the count of a rate; an empty one if there is none."""
        return self.counts.get(rate, Count())

    def effective(self, rate: str) -> Count:
        """Return the count of a rate, scaled to as many independent queries as its variance is worth.

        A query that m processes see counts m times, and fails in all or none, so n counts have the variance
        of n * n / sum(m * m) independent ones (Kish, 1965). The sum is not known, but bounded. Processes get
        queries by chance, so two of them both see a query with at most twice the probability that one sees it
        twice: (1 - exp(-x))**2 <= 2 * (1 - exp(-x) * (1 + x)). One is added to those seen, as they are few.
        """
        found = self.of(rate)
        others = self.processes - 1
        repeats = 1 + 2 * others * (self.repeated + 1) / max(found.of, 1.0)
        return found * (1 / min(repeats, self.processes))


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
        processes, repeated = (self._total(release, metric).bad for metric in (PROCESSES, REPEATED))
        return ReleaseMetrics(counts, max(processes, 1.0), repeated, self._total(release, FALLBACK))

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
