"""The alarms and graphs of an environment as plain data, for the stack and for the cost of a month."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stacks.settings import Settings

SHARES = {
    "RouterErrors": "Latency",
    "CallerFallback": "Latency",
    "StaticAnswers": "Latency",
    "InvalidOutput": "Fallback",
}
"""Metrics that are written only when they are 1, so that they cost nothing otherwise. Each is a share of the
queries for which the other metric is written: all of them, or those that a model was asked."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An alarm that is raised while a metric is above a threshold.

    Attributes:
        name: the end of the alarm's name.
        metric: its metric. Default: the one of this name.
        statistic: of the metric in a period. The average of a metric of SHARES is its share.
        threshold: raised above it.
        meaning: what it tells, for its description.
        periods: consecutive periods above the threshold.
        is_hourly: whether a period is an hour, not five minutes.
    """

    name: str
    metric: str = ""
    statistic: str
    threshold: float
    meaning: str
    periods: int = 1
    is_hourly: bool = False

    @property
    def watched(self) -> str:
        """Return the name of its metric."""
        return self.metric or self.name

    @property
    def metrics(self) -> int:
        """Return the number of metrics that it reads: AWS bills an alarm for each."""
        return 2 if self.watched in SHARES else 1


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
    yield Alarm(
        name="CostUsd",
        statistic="Sum",
        threshold=limits.hourly_cost_usd,
        meaning="the tokens of one hour cost this much, in USD; see docs/runbook.md",
        is_hourly=True,
    )
    yield Alarm(
        name="Requests",
        metric="Latency",
        statistic="SampleCount",
        threshold=limits.hourly_requests,
        meaning="one hour has this many requests; see docs/runbook.md",
        is_hourly=True,
    )
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


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph of the dashboard: of metrics, or of fields in the router's log.

    What no alarm reads is drawn from the log, since CloudWatch bills each series of a metric.

    Attributes:
        title: shown above it.
        metrics: names of metrics with their statistics, such as ("Latency", "p95").
        query: CloudWatch Logs Insights query; empty for a graph of metrics.
    """

    title: str
    metrics: tuple[tuple[str, str], ...] = ()
    query: str = ""


REQUEST = "filter ispresent(Latency)"
"""Selects the lines of queries; others have the tokens of models that did not answer."""


def graphs(settings: Settings) -> list[tuple[Graph, ...]]:
    """Return the dashboard's rows."""
    rows: list[tuple[Graph, ...]] = [
        (
            Graph(title="Requests", metrics=(("Latency", "SampleCount"),)),
            _averages(
                "Fallbacks, static answers, fallbacks for a caller's use",
                *("Fallback", "StaticAnswers", "CallerFallback"),
            ),
        ),
        (
            Graph(title="Latency, ms", metrics=tuple(("Latency", each) for each in ("p50", "p95", "p99"))),
            _logged(
                "Model latency, ms",
                "filter ispresent(ModelLatency)",
                "pct(ModelLatency, 50) as p50, pct(ModelLatency, 95) as p95",
            ),
        ),
        (
            _averages("Invalid outputs and errors", "InvalidOutput", "RouterErrors", "RouteErrors"),
            _logged("Cache hits", REQUEST, "avg(CacheHits) as CacheHits"),
        ),
    ]
    if not settings.head.is_off:
        rows.append(
            (
                _logged(
                    "Answers by the classification head",
                    "filter ispresent(HeadAnswers)",
                    "avg(HeadAnswers) as HeadAnswers",
                ),
                _averages("Difference between head and distilled model", "HeadDifference"),
            )
        )
    tokens = "sum(InputTokens) as InputTokens, sum(OutputTokens) as OutputTokens"
    rows.append(
        (
            _logged("Tokens", "filter ispresent(InputTokens)", tokens),
            Graph(title="Cost of the tokens, USD", metrics=(("CostUsd", "Sum"),)),
        )
    )
    for name in ("release", "source"):
        rows += _by(name)
    rows.append(
        (Graph(title="Releases failed, jobs stalled", metrics=_sums("FailedReleases", "StalledJobs")),)
    )
    rows.append(
        (
            Graph(
                title="Throughput that is billed but not routed",
                metrics=(("UnroutedThroughput", "Maximum"),),
            ),
        )
    )
    return rows


def _by(name: str) -> Iterator[tuple[Graph, ...]]:
    """Yield the rows with a line for each release or source."""
    yield (
        _logged(f"Requests by {name}", REQUEST, "count(*) as Requests", name),
        _logged(f"Latency by {name}, ms (p95)", REQUEST, "pct(Latency, 95) as p95", name),
    )
    yield (
        _logged(
            f"Invalid outputs by {name}",
            "filter ispresent(InvalidOutput)",
            "avg(InvalidOutput) as InvalidOutput",
            name,
        ),
        _logged(
            f"Cost of the tokens by {name}, USD",
            "filter ispresent(CostUsd)",
            "sum(CostUsd) as CostUsd",
            name,
        ),
    )


def _averages(title: str, *names: str) -> Graph:
    return Graph(title=title, metrics=tuple((name, "Average") for name in names))


def _sums(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, "Sum") for name in names)


def _logged(title: str, selected: str, shown: str, *by: str) -> Graph:
    """Return a graph with a point for five minutes, and a line for each value of the fields `by`.

    Such a query gives a line for each group (CloudWatch Logs user guide, "stats").
    """
    return Graph(title=title, query=f"{selected} | stats {shown} by {', '.join((*by, 'bin(5m)'))}")
