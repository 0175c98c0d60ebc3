"""EMF log lines become metrics, each once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from local.metrics_bridge import LOOK_BACK_MS, MAX_DATA, Bridge, parse

STAMP = 1_795_000_000_000


def emf(values: dict[str, Any], dimensions: list[list[str]], **members: str) -> str:
    metrics = [{"Name": name, "Unit": "Count"} for name in values]
    directive = {"Namespace": "DistilledRouter", "Dimensions": dimensions, "Metrics": metrics}
    return json.dumps({"_aws": {"Timestamp": STAMP, "CloudWatchMetrics": [directive]}, **members, **values})


def test_each_dimension_set_gets_its_own_datum() -> None:
    line = emf({"Requests": [1.0]}, [["service"], ["service", "release"]], service="router", release="abc")
    found = list(parse(line))
    assert [namespace for namespace, _ in found] == ["DistilledRouter", "DistilledRouter"]
    assert [datum["Dimensions"] for _, datum in found] == [
        [{"Name": "service", "Value": "router"}],
        [{"Name": "service", "Value": "router"}, {"Name": "release", "Value": "abc"}],
    ]
    assert found[0][1]["Timestamp"] == datetime.fromtimestamp(STAMP / 1000, UTC)
    assert found[0][1]["Unit"] == "Count"


def test_single_values_and_lists_are_read() -> None:
    line = emf({"Latency": [3.5, 4.5], "Requests": 1}, [["service"]], service="router")
    values = {datum["MetricName"]: datum["Values"] for _, datum in parse(line)}
    assert values == {"Latency": [3.5, 4.5], "Requests": [1.0]}


def test_metric_without_dimensions_is_published() -> None:
    assert [datum["Dimensions"] for _, datum in parse(emf({"Requests": 1}, []))] == [[]]


def test_documents_over_a_limit_yield_nothing() -> None:
    """CloudWatch drops them."""
    full = {"Latency": [1.0] * 100, **{f"Other{number}": 1 for number in range(99)}}
    assert [len(datum["Values"]) for _, datum in parse(emf(full, [["s"]], s="x"))] == [100, *[1] * 99]
    for values in ({**full, "Latency": [1.0] * 101}, {**full, "More": 1}):
        assert list(parse(emf(values, [["s"]], s="x"))) == []
    names = [f"d{number}" for number in range(31)]
    assert list(parse(emf({"Requests": 1}, [names], **dict.fromkeys(names, "x")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "plain text about CloudWatchMetrics",
        "[1]",
        '"CloudWatchMetrics"',
        '{"message": "no _aws"}',
        '{"_aws": {"CloudWatchMetrics": []}}',
        emf({"Requests": "many"}, [["service"]], service="router"),
        emf({"Requests": True}, [["service"]], service="router"),
        emf({"Requests": 1}, [["missing"]], service="router"),
    ],
)
def test_other_lines_yield_nothing(line: str) -> None:
    assert list(parse(line)) == []


class Logs:
    """Log events in memory, as the emulator keeps them: without event ids."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, stream: str, timestamp: int, message: str) -> None:
        self.events.append({"logStreamName": stream, "timestamp": timestamp, "message": message})

    def get_paginator(self, operation: str) -> "Pages":
        return Pages(self, operation)


class Pages:
    def __init__(self, logs: Logs, operation: str) -> None:
        self._logs = logs
        self._operation = operation

    def paginate(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        if self._operation == "describe_log_groups":
            yield {"logGroups": [{"logGroupName": "router"}]}
            return
        yield {"events": [e for e in self._logs.events if e["timestamp"] >= parameters["startTime"]]}


class CloudWatch:
    def __init__(self) -> None:
        self.calls: list[list[Any]] = []
        self.broken = False

    def put_metric_data(self, *, Namespace: str, MetricData: list[Any]) -> None:  # noqa: N803 - boto3's names
        if self.broken:
            raise ConnectionError(Namespace)
        self.calls.append(MetricData)


@pytest.fixture
def logs() -> Logs:
    return Logs()


@pytest.fixture
def cloudwatch() -> CloudWatch:
    return CloudWatch()


@pytest.fixture
def bridge(logs: Any, cloudwatch: Any) -> Bridge:
    return Bridge(logs, cloudwatch)


LINE = emf({"Requests": 1}, [["service"]], service="router")


def test_event_counts_once(bridge: Bridge, logs: Logs) -> None:
    logs.add("a", STAMP, LINE)
    assert [bridge.poll(), bridge.poll()] == [1, 0]


def test_equal_lines_of_the_same_millisecond_count_each(bridge: Bridge, logs: Logs) -> None:
    logs.add("a", STAMP, LINE)
    logs.add("a", STAMP, LINE)
    logs.add("b", STAMP, LINE)
    assert bridge.poll() == 3


def test_late_event_counts(bridge: Bridge, logs: Logs) -> None:
    logs.add("a", STAMP, LINE)
    bridge.poll()
    logs.add("b", STAMP - LOOK_BACK_MS, LINE)
    assert bridge.poll() == 1
    assert bridge.poll() == 0


def test_refused_metrics_are_published_later(bridge: Bridge, logs: Logs, cloudwatch: CloudWatch) -> None:
    logs.add("a", STAMP, LINE)
    cloudwatch.broken = True
    with pytest.raises(ConnectionError):
        bridge.poll()
    cloudwatch.broken = False
    assert bridge.poll() == 1


def test_many_data_are_split_into_several_calls(bridge: Bridge, logs: Logs, cloudwatch: CloudWatch) -> None:
    for number in range(MAX_DATA + 1):
        logs.add(str(number), STAMP, LINE)
    bridge.poll()
    assert [len(call) for call in cloudwatch.calls] == [MAX_DATA, 1]
