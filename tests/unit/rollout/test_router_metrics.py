"""Reading CloudWatch within its limits, however long a rollout lasts."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from rollout.bounds import lower, upper
from rollout.metrics import Count, Estimate, ReleaseMetrics, RequestMetrics, RouterMetrics

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
    # Those that a head answered are requests too, and no fallbacks.
    assert (metrics.processes, metrics.repeated, metrics.requests) == (3, 3, Count(3, 33))
    assert (metrics.explored["fallback_rate"], metrics.by_head) == (Count(3, 30), 3)


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


def requests(left: Count, explored: Count, by_head: float, **more: Any) -> RequestMetrics:
    counts = ({"error_rate": left}, {"error_rate": explored})
    return RequestMetrics(counts[0], explored=counts[1], by_head=by_head, **more)


def test_explored_queries_stand_for_all_that_the_head_answers() -> None:
    """2.5 % of the 400 hard queries fail, and none of the 600 easy ones, of which 30 were explored."""
    found = requests(Count(10, 400), Count(0, 30), 570).estimate("error_rate")
    assert found.rate == pytest.approx(0.01)
    assert found.parts == [(0.4, Count(10, 400)), (0.6, Count(0, 30))]
    also = requests(Count(10, 400), Count(1, 30), 570).estimate("error_rate")
    assert also.rate == pytest.approx(0.01 + 0.6 / 30)


@pytest.mark.parametrize("level", [0.005, 0.12])
def test_estimate_without_a_head_has_the_exact_bounds(level: float) -> None:
    found = RequestMetrics({"error_rate": Count(7, 100)}).estimate("error_rate")
    assert found.least(level) == pytest.approx(lower(7, 100, level))
    assert found.most(level) == pytest.approx(upper(7, 100, level))


@pytest.mark.parametrize(
    ("left", "explored", "by_head", "hard"),
    [
        (100, 0, 0, False),
        (0, 0, 0, False),
        (99, 0, 1, False),
        (95, 1, 4, False),
        (94, 0, 6, True),
        (0, 5, 95, True),
    ],
)
def test_few_answers_of_a_head_leave_a_sample_of_all_queries(
    left: int, explored: int, by_head: int, hard: bool
) -> None:
    found = requests(Count(0, left), Count(0, explored), by_head)
    assert found.is_of_hard_queries("error_rate") == hard


def test_what_was_not_explored_may_be_all_good_or_all_bad() -> None:
    found = requests(Count(40, 100), Count(), 300).estimate("error_rate")
    assert found.rate == pytest.approx(0.1)
    assert found.least(0.005) == pytest.approx(0.25 * lower(40, 100, 0.005))
    assert found.most(0.005) > 0.75
    nothing = requests(Count(), Count(), 300).estimate("error_rate")
    assert (nothing.rate, nothing.least(0.005)) == (0, 0)
    assert nothing.most(0.005) == pytest.approx(1)


def test_parts_are_worth_as_many_queries_as_are_independent() -> None:
    """Ten processes that all see the same hundred queries."""
    found = requests(Count(40, 400), Count(10, 100), 500, processes=10, repeated=900).estimate("error_rate")
    assert [count for _, count in found.parts] == [Count(4, 40), Count(1, 10)]


@pytest.mark.parametrize(("left", "explored"), [(0.025, 0.0), (0.01, 0.01), (0.001, 0.016)])
def test_bounds_hold(left: float, explored: float) -> None:
    """A bound is wrong in one of 200 samples; in more than 14 of 1,000 with a probability of 0.1 %."""
    chance = random.Random(5)
    true = 0.4 * left + 0.6 * explored
    found = [
        Estimate(
            [
                (0.4, Count(chance.binomialvariate(400, left), 400)),
                (0.6, Count(chance.binomialvariate(30, explored), 30)),
            ]
        )
        for _ in range(1_000)
    ]
    assert sum(one.least(0.005) > true for one in found) <= 14
    assert sum(one.most(0.005) < true for one in found) <= 14
