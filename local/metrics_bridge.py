"""Turn EMF log lines into metrics, as CloudWatch does but the emulator does not.

A test double that runs beside the emulator. It reads the functions' log lines and calls PutMetricData with
the metrics that their `_aws` member declares. Each log event counts once.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import MetricDatumTypeDef
    from mypy_boto3_logs import CloudWatchLogsClient

POLL_SECONDS = 1.0
# An event may become readable after its timestamp, so each poll reads again; keys identify new events.
LOOK_BACK_MS = 10_000
# PutMetricData takes up to 1,000 data.
MAX_DATA = 1000
# CloudWatch extracts nothing from a document with more (CloudWatch user guide, embedded metric format
# specification): values of a metric, metrics of a directive, dimensions of a set.
MOST_VALUES, MOST_METRICS, MOST_DIMENSIONS = 100, 100, 30

type Key = tuple[str, str, int, int]


def parse(message: str) -> Iterator[tuple[str, MetricDatumTypeDef]]:
    """Yield (namespace, datum) for each metric and dimension set that one log line declares.

    Lines that are not EMF records or exceed its limits, and metrics without a value or with a missing
    dimension, are skipped.

    >>> line = '{"_aws": {"Timestamp": 0, "CloudWatchMetrics": [{"Namespace": "N", "Dimensions": [["s"]], '
    >>> line += '"Metrics": [{"Name": "Requests"}]}]}, "s": "router", "Requests": 1}'
    >>> [(namespace, datum["MetricName"], datum["Values"]) for namespace, datum in parse(line)]
    [('N', 'Requests', [1.0])]
    """
    try:
        record = json.loads(message)
        directives = record["_aws"]["CloudWatchMetrics"]
        stamp = datetime.fromtimestamp(record["_aws"]["Timestamp"] / 1000, UTC)
    except (ValueError, KeyError, TypeError):
        return
    if any(_is_too_large(directive, record) for directive in directives):
        return
    for directive in directives:
        for metric in directive.get("Metrics", []):
            values = _values(record.get(metric["Name"]))
            for names in directive.get("Dimensions") or [[]]:
                if values and all(name in record for name in names):
                    yield directive["Namespace"], _datum(metric, names, values, record, stamp)


def _is_too_large(directive: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    metrics = directive.get("Metrics", [])
    return (
        len(metrics) > MOST_METRICS
        or any(len(names) > MOST_DIMENSIONS for names in directive.get("Dimensions") or [])
        or any(len(_values(record.get(metric["Name"]))) > MOST_VALUES for metric in metrics)
    )


def _values(raw: Any) -> list[float]:
    found = raw if isinstance(raw, list) else [raw]
    return [float(value) for value in found if isinstance(value, int | float) and not isinstance(value, bool)]


def _datum(
    metric: Mapping[str, str],
    names: list[str],
    values: list[float],
    record: Mapping[str, Any],
    stamp: datetime,
) -> MetricDatumTypeDef:
    return {
        "MetricName": metric["Name"],
        "Dimensions": [{"Name": name, "Value": str(record[name])} for name in names],
        "Timestamp": stamp,
        "Values": values,
        "Counts": [1.0] * len(values),
        "Unit": metric.get("Unit", "None"),  # type: ignore[typeddict-item]  # EMF's units are CloudWatch's
    }


class Bridge:
    """Reads new events of all log groups and publishes their metrics."""

    def __init__(self, logs: CloudWatchLogsClient, cloudwatch: CloudWatchClient) -> None:
        self._logs = logs
        self._cloudwatch = cloudwatch
        self._newest: dict[str, int] = defaultdict(int)
        self._seen: set[Key] = set()

    def poll(self) -> int:
        """Publish the metrics of all new log events; return the number of data points."""
        events = [event for group in self._groups() for event in self._new_events(group)]
        by_namespace: dict[str, list[MetricDatumTypeDef]] = defaultdict(list)
        for _, message in events:
            for namespace, datum in parse(message):
                by_namespace[namespace].append(datum)
        for namespace, data in by_namespace.items():
            for start in range(0, len(data), MAX_DATA):
                self._cloudwatch.put_metric_data(
                    Namespace=namespace, MetricData=data[start : start + MAX_DATA]
                )
        # After publishing: if publishing fails, the next poll reads the events again.
        self._remember(key for key, _ in events)
        return sum(map(len, by_namespace.values()))

    def _groups(self) -> Iterator[str]:
        for page in self._logs.get_paginator("describe_log_groups").paginate():
            yield from (group["logGroupName"] for group in page["logGroups"])

    def _new_events(self, group: str) -> Iterator[tuple[Key, str]]:
        since = max(0, self._newest[group] - LOOK_BACK_MS)
        pages = self._logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, startTime=since, filterPattern='"CloudWatchMetrics"'
        )
        for key, message in _keyed(group, (event for page in pages for event in page["events"])):
            if key not in self._seen:
                yield key, message

    def _remember(self, keys: Iterable[Key]) -> None:
        """Record events as published; forget those too old to be read again."""
        for key in keys:
            self._seen.add(key)
            self._newest[key[0]] = max(self._newest[key[0]], key[2])
        self._seen = {key for key in self._seen if key[2] >= self._newest[key[0]] - LOOK_BACK_MS}


def _keyed(group: str, events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Key, str]]:
    """Yield each event's message with a key, because the emulator's log events have no id.

    The key has the event's number among those of its stream and millisecond. Each poll reads whole
    milliseconds, so an event has the same number in every poll.
    """
    numbers: Counter[tuple[str, int]] = Counter()
    for event in events:
        place = (event["logStreamName"], event["timestamp"])
        yield (group, *place, numbers[place]), event["message"]
        numbers[place] += 1


def main() -> int:
    """Poll until SIGTERM."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    bridge = Bridge(boto3.client("logs"), boto3.client("cloudwatch"))
    while not stopped.wait(POLL_SECONDS):
        # The emulator may be busy or stopped; the next poll reads the same events again.
        with contextlib.suppress(BotoCoreError, ClientError):
            bridge.poll()
    return 0


if __name__ == "__main__":
    sys.exit(main())
