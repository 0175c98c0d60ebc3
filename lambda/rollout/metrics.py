"""Metrics of one release during a rollout, as counted by the routers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from distilled_router.env import METRICS_NAMESPACE
from rollout.bounds import lower, upper

# The router's metric of each rate: 0 or 1 for each query that a process answers for the first time.
METRICS: Mapping[str, str] = {
    "error_rate": "CanaryErrors",
    "fallback_rate": "CanaryFallback",
    "invalid_output_rate": "CanaryInvalidOutput",
}
# The same for queries that the classification head would have answered, but the model was asked.
EXPLORED: Mapping[str, str] = {
    rate: metric.replace("Canary", "CanaryExplored") for rate, metric in METRICS.items()
}
# 1 for each query that the head answered when a process saw it for the first time.
BY_HEAD = "CanaryHead"
# 1 for the first query that a process counts for a release, 0 for each of the others.
PROCESSES = "CanaryProcesses"
# 1 for each query that a process answers for the second time.
REPEATED = "CanaryRepeated"
# 1 for each request that the release's model did not answer, however often its query was asked; no value for
# those that the head answered, for which HeadAnswers is 1.
FALLBACK, HEAD_ANSWERS = "Fallback", "HeadAnswers"
# While the head takes at most this share, what it leaves to the model counts as a sample of all queries.
_FEW_EASY = 0.05
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
class Estimate:
    """A share among all queries, estimated from parts that were sampled separately.

    `parts` are the parts of all queries, and what was found among their samples. Without a sample, a part may
    be all good or all bad. The bounds combine those of the parts (Zou and Donner, 2008).
    """

    parts: Sequence[tuple[float, Count]]

    @property
    def rate(self) -> float:
        """Return the share that is most likely."""
        return sum(part * found.rate for part, found in self.parts)

    def least(self, level: float) -> float:
        """Return the lower bound: a smaller share would give as many with less than about `level`."""
        return self.rate - math.hypot(
            *(part * (found.rate - lower(*whole(found), level)) for part, found in self.parts)
        )

    def most(self, level: float) -> float:
        """Return the upper bound."""
        bounds = ((part, found, upper(*whole(found), level)) for part, found in self.parts)
        return self.rate + math.hypot(*(part * (bound - found.rate) for part, found, bound in bounds))


@dataclass(frozen=True)
class ReleaseMetrics:
    """Metrics of one release.

    Attributes:
        counts: the failed queries, by rate.
        processes: that counted requests. Each counts a query once, so this is how often one query counts at
            most; 1 for probes.
        repeated: queries that a process answered at least twice; each process counts its own.
        requests: fallbacks among all requests, equal ones and those that the head answered too.
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
        return found * self._independent(found.of)

    def estimate(self, rate: str) -> Estimate:
        """Return a rate among all queries of the release."""
        return Estimate([(1.0, self.effective(rate))])

    def told(self, rate: str, what: str = "") -> str:
        """Return the number of queries that the rate is of."""
        return f"{self.of(rate).of:.0f} {what}".strip()

    def _independent(self, queries: float) -> float:
        others = self.processes - 1
        repeats = 1 + 2 * others * (self.repeated + 1) / max(queries, 1.0)
        return 1 / min(repeats, self.processes)


@dataclass(frozen=True)
class RequestMetrics(ReleaseMetrics):
    """Metrics of one release's requests, some of which its classification head may have answered.

    The head answers the easy queries and leaves the hard ones to the model, which does worse there than among
    all queries; the head of another release leaves others. The limits are for all queries. So queries that
    the model was asked all the same, the explored ones, stand for all that the head would have answered.

    Attributes:
        explored: the failed queries among the explored ones, by rate.
        by_head: queries that the head answered.
    """

    explored: Mapping[str, Count] = field(default_factory=dict)
    by_head: float = 0.0

    @property
    def has_head(self) -> bool:
        """Return whether the head answered queries, or would have."""
        return self.by_head > 0 or any(count.of for count in self.explored.values())

    def is_of_hard_queries(self, rate: str) -> bool:
        """Return whether the queries that the head left to the model are no fair sample of all."""
        easy = self.explored.get(rate, Count()).of + self.by_head
        return easy > _FEW_EASY * (self.of(rate).of + easy)

    def estimate(self, rate: str) -> Estimate:
        """Return a rate among all queries of the release, also those that its head answered."""
        left, explored = self.of(rate), self.explored.get(rate, Count())
        easy = explored.of + self.by_head
        queries = left.of + easy
        # CloudWatch may not have the values of each metric yet.
        if not self.has_head or not queries:
            return super().estimate(rate)
        part = self._independent(queries)
        return Estimate([(left.of / queries, left * part), (easy / queries, explored * part)])

    def told(self, rate: str, what: str = "") -> str:
        """Return the number of queries that the rate is of, and of those that the model was asked."""
        if not self.has_head:
            return super().told(rate, what)
        asked = self.of(rate).of + self.explored.get(rate, Count()).of
        return f"{f'{asked + self.by_head:.0f} {what}'.strip()} (its model was asked {asked:.0f})"


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

    def of(self, release: str) -> RequestMetrics:
        """Return the metrics of one release."""
        counts, explored = (
            {rate: self._total(release, metric) for rate, metric in metrics.items()}
            for metrics in (METRICS, EXPLORED)
        )
        processes, repeated, by_head, answers = (
            self._total(release, metric).bad for metric in (PROCESSES, REPEATED, BY_HEAD, HEAD_ANSWERS)
        )
        requests = self._total(release, FALLBACK) + Count(0, answers)
        return RequestMetrics(counts, max(processes, 1.0), repeated, requests, explored, by_head)

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


def whole(count: Count) -> tuple[int, int]:
    """Return a count in whole numbers, rounded in the candidate's favour."""
    return math.floor(count.bad + 1e-9), math.ceil(count.of - 1e-9)
