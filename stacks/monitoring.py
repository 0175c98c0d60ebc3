"""The alarms of an environment as plain data, for the stack and for the cost of a month."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stacks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An alarm that is raised while a metric is above a threshold.

    Attributes:
        name: of the metric, and the end of the alarm's own.
        statistic: of the metric in a period.
        threshold: raised above it.
        meaning: what it tells, for its description.
        periods: consecutive periods above the threshold.
        is_hourly: whether a period is an hour, not five minutes.
    """

    name: str
    statistic: str
    threshold: float
    meaning: str
    periods: int = 1
    is_hourly: bool = False


UNDELIVERED = Alarm(
    name="Undelivered",
    statistic="Maximum",
    threshold=0,
    meaning="an event or a notification could not be delivered; see docs/runbook.md",
)
"""The alarm on the length of the queue, a metric of SQS. The others are on metrics of the functions."""


def alarms(settings: Settings) -> list[Alarm]:
    """Return an environment's alarms on its functions' metrics."""
    return [*_rates(settings), *_release(), *_hourly(settings)]


def _rates(settings: Settings) -> Iterator[Alarm]:
    limits = settings.alarms
    for name, statistic, threshold, meaning in (
        ("RouterErrors", "Average", limits.error_rate, "queries fail with an unexpected error"),
        ("RouteErrors", "Average", limits.error_rate, "the route can't be read"),
        (
            "Fallback",
            "Average",
            limits.fallback_rate,
            "the distilled model does not answer the queries",
        ),
        (
            "CallerFallback",
            "Average",
            limits.fallback_rate,
            "callers want more than the models' quotas allow; see docs/runbook.md",
        ),
        (
            "StaticAnswers",
            "Average",
            limits.static_rate,
            "neither the distilled nor the base model answers; see docs/runbook.md",
        ),
        ("InvalidOutput", "Average", limits.invalid_output_rate, "model outputs are not valid weights"),
        ("Latency", "p95", limits.latency_p95_ms, "the router is slow (in milliseconds)"),
    ):
        yield Alarm(
            name=name,
            statistic=statistic,
            threshold=threshold,
            meaning=meaning,
            periods=limits.evaluation_periods,
        )


def _release() -> Iterator[Alarm]:
    for name, statistic, meaning in (
        (
            "FailedReleases",
            "Sum",
            "a release failed, or the live one on another hold-out set: see the releases table",
        ),
        ("StalledJobs", "Sum", "a customization job has not started; see docs/runbook.md"),
        (
            "UnroutedThroughput",
            "Maximum",
            "throughput is billed but not routed: committed or left on purpose; see docs/runbook.md",
        ),
    ):
        yield Alarm(name=name, statistic=statistic, threshold=0, meaning=meaning)


def _hourly(settings: Settings) -> Iterator[Alarm]:
    """Yield the alarms on spending, which a budget would tell hours later, and on few explored queries."""
    limits = settings.alarms
    for name, threshold, meaning in (
        (
            "CostUsd",
            limits.hourly_cost_usd,
            "the tokens of one hour cost this much, in USD; see docs/runbook.md",
        ),
        ("Requests", limits.hourly_requests, "one hour has this many requests; see docs/runbook.md"),
    ):
        yield Alarm(name=name, statistic="Sum", threshold=threshold, meaning=meaning, is_hourly=True)
    if not settings.head.is_off:
        yield Alarm(
            name="HeadDifference",
            statistic="Average",
            threshold=settings.head.maximum_difference,
            meaning="the classification head's answers differ from the distilled model's; see "
            "docs/runbook.md",
            periods=limits.evaluation_periods,
            is_hourly=True,
        )
