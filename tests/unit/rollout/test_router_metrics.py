"""Reading CloudWatch within its limits, however long a rollout lasts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from rollout.metrics import Count, RouterMetrics

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
    assert (metrics.model, metrics.processes) == (Count(3, 30), 3)
