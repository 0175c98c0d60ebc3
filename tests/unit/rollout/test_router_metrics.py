"""Reading CloudWatch within its limits, however long a rollout lasts."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from rollout.metrics import Count, ReleaseMetrics, RouterMetrics

DAY = 86_400
# The longest rollout that the settings allow: twenty steps of a day each, and two weeks of baking.
LONGEST = (20 + 14) * DAY


class CloudWatch:
    """Refuses what GetMetricStatistics refuses: other periods, more than a day's, more than 1,440 points."""

    def get_metric_statistics(self, **wanted: Any) -> dict[str, Any]:
        """Return a point for each hour."""
        span: timedelta = wanted["EndTime"] - wanted["StartTime"]
        assert wanted["Period"] % 60 == 0
        assert wanted["Period"] <= DAY
        assert span.total_seconds() / wanted["Period"] <= 1_440
        # Data are kept by the minute for 15 days, in five minutes for 63, and in hours after that.
        assert span < timedelta(days=15) or wanted["Period"] % 300 == 0
        hours = -(-int(span.total_seconds()) // 3_600)
        return {"Datapoints": [{"Sum": 1.0, "SampleCount": 10.0}] * hours}


@pytest.mark.parametrize("seconds", [0, 59, 1_800, DAY - 61, DAY, DAY + 1, 15 * DAY, LONGEST])
def test_any_rollout_can_be_read(seconds: int) -> None:
    metrics = RouterMetrics(CloudWatch(), "owner", 1_800_000_030, 1_800_000_030 + seconds).of("release")
    assert metrics.of("error_rate").of >= 10 * (seconds // 3_600)


def test_points_are_summed_up() -> None:
    metrics = RouterMetrics(CloudWatch(), "owner", 0, 3 * 3_600 - 60).of("release")
    assert metrics.of("fallback_rate") == Count(3, 30)
    assert (metrics.processes, metrics.repeated, metrics.requests) == (3, 3, Count(3, 30))


@pytest.mark.parametrize(
    ("processes", "repeated", "independent"),
    [
        (1, 500, 1_000),  # a single process counts each query once
        (10, 0, 982),  # none is repeated in a process, so hardly any in two
        (10, 50, 521),
        (10, 900, 100),  # all processes see the same hundred
    ],
)
def test_count_is_worth_as_many_queries_as_are_independent(
    processes: int, repeated: int, independent: float
) -> None:
    metrics = ReleaseMetrics({"error_rate": Count(20, 1_000)}, processes, repeated)
    found = metrics.effective("error_rate")
    assert found.of == pytest.approx(independent, abs=1)
    assert found.rate == pytest.approx(0.02)


@pytest.mark.parametrize("processes", [2, 3, 10, 30])
@pytest.mark.parametrize("requests", [400, 4_000, 40_000])
def test_no_traffic_is_worth_fewer_queries_than_it_is_taken_for(processes: int, requests: int) -> None:
    """The bound, against the true number for Zipf traffic: n * n / sum(m * m)."""
    chance = random.Random(7)
    asked = zip(
        chance.choices(range(20_000), [1 / (rank + 1) for rank in range(20_000)], k=requests),
        chance.choices(range(processes), k=requests),
        strict=True,
    )
    times = Counter(asked)
    sights = Counter(query for query, _ in times)
    metrics = ReleaseMetrics(
        {"error_rate": Count(0, len(times))}, processes, sum(number > 1 for number in times.values())
    )
    true = len(times) ** 2 / sum(number**2 for number in sights.values())
    assert 0.5 * true <= metrics.effective("error_rate").of <= 1.05 * true
