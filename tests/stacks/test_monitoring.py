"""What alarms, graphs and rollouts read is what the functions write, with exactly these dimensions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger

from distilled_router.env import METRICS_NAMESPACE
from local.metrics_bridge import parse
from rollout import metrics as canary
from router.first_sights import Sight
from router.sources import BASE, DISTILLED, HEAD, STATIC, Outcome
from router.telemetry import EVENTS, MEASURES, Telemetry, Trace
from stacks.monitoring import REQUEST, SHARES
from stacks.settings import PROJECT
from tests.stacks.assembly import Assembly
from tests.stacks.test_operations_stack import watched
from tests.unit.router.doubles import router_env

CODE = "".join(path.read_text(encoding="utf-8") for path in sorted((PROJECT / "lambda").rglob("*.py")))
DEPLOYMENT = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/abc"
ANSWERED = Outcome(DEPLOYMENT, {"a": 1.0}, "", "", True, 300.0, 40, 6)
INVALID = Outcome(DEPLOYMENT, None, "invalid_output", "", True, 300.0, 40, 6)


def trace(source: str, *, in_rollout: bool, **changes: Any) -> Trace:
    values = {"release": "a" * 12, "has_head": True, "latency_ms": 416.0, "sight": Sight.FIRST, **changes}
    found = Trace("dog", source=source, in_rollout=in_rollout, **values)
    found.sight = found.sight if in_rollout else None
    return found


def traces(*, in_rollout: bool) -> Iterator[Trace]:
    """Yield a query of each kind: answered by each source, invalid, failed, throttled, explored, repeated."""
    yield trace(DISTILLED, in_rollout=in_rollout, distilled=ANSWERED, route_errors=[1])
    yield trace(DISTILLED, in_rollout=in_rollout, distilled=ANSWERED, explored=True, difference=0.1)
    yield trace(DISTILLED, in_rollout=in_rollout, distilled=ANSWERED, cached=True, sight=Sight.AGAIN)
    yield trace(HEAD, in_rollout=in_rollout)
    invalid = {"distilled": INVALID, "reason": "invalid_output"}
    yield trace(BASE, in_rollout=in_rollout, base=ANSWERED, failures={DISTILLED: "invalid_output"}, **invalid)
    failed = {DISTILLED: "invalid_output", BASE: "denied"}
    yield trace(STATIC, in_rollout=in_rollout, failures=failed, errors=1, **invalid)
    throttled = {DISTILLED: "throttled"}
    of_caller = {"reason": "throttled", "failures": throttled, "sight": None}
    yield trace(BASE, in_rollout=in_rollout, base=ANSWERED, **of_caller)


def lines(capsys: pytest.CaptureFixture[str], *, in_rollout: bool) -> list[dict[str, Any]]:
    """Return what the router writes about them."""
    env = router_env(student_prices="0.035 0.14", base_prices="0.035 0.14", base_model=DEPLOYMENT)
    telemetry = Telemetry(env, Logger(service=f"{env.owner}-{uuid4()}"))
    telemetry.finished(list(traces(in_rollout=in_rollout)), "request-1")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def emitted(written: list[dict[str, Any]]) -> set[tuple[str, frozenset[str]]]:
    """Return the metrics that CloudWatch extracts, each with the names of its dimensions."""
    found = (one for line in written for one in parse(json.dumps(line)))
    return {
        (datum["MetricName"], frozenset(each["Name"] for each in datum["Dimensions"]))
        for namespace, datum in found
        if namespace == METRICS_NAMESPACE
    }


def is_counted(metric: str) -> bool:
    """Return whether a function of the release counts this metric, which it does with `service` alone."""
    return bool(re.search(rf'count\(\s*"{metric}"', CODE))


SERVICE, OF_RELEASE = frozenset({"service"}), frozenset({"service", "release"})


def test_metrics_of_alarms_are_written(assembly: Assembly, capsys: pytest.CaptureFixture[str]) -> None:
    written = emitted(lines(capsys, in_rollout=False))
    for alarm in assembly.resources("AWS::CloudWatch::Alarm"):
        for metric in watched(alarm.properties):
            if metric["Namespace"] == "AWS/SQS":
                continue
            assert metric["Dimensions"] == [{"Name": "service", "Value": assembly.settings.owner}]
            name = metric["MetricName"]
            assert (name, SERVICE) in written or is_counted(name), name


def widgets(assembly: Assembly) -> list[dict[str, Any]]:
    body = assembly.plain(assembly.one("AWS::CloudWatch::Dashboard").properties["DashboardBody"])
    found: list[dict[str, Any]] = json.loads(body)["widgets"]
    return found


def test_metrics_of_graphs_are_written(assembly: Assembly, capsys: pytest.CaptureFixture[str]) -> None:
    written = emitted(lines(capsys, in_rollout=False))
    drawn = [line for each in widgets(assembly) for line in each["properties"].get("metrics", ())]
    # Expressions read the metrics after them.
    shown = [line for line in drawn if isinstance(line[0], str)]
    assert len(shown) >= 12
    for namespace, name, *dimensions in shown:
        assert namespace == METRICS_NAMESPACE
        assert dimensions[:2] == ["service", assembly.settings.owner]
        assert (name, SERVICE) in written or is_counted(name), name


QUERY = re.compile(
    r"SOURCE '<RouterFunctionLogs>' \| filter ispresent\((?P<filter>\w+)\) \| "
    r"stats (?P<stats>.+) by (?:(?P<by>\w+), )?bin\(5m\)"
)
STATISTIC = re.compile(r"(?:avg|sum|count)\((\w+|\*)\) as \w+|pct\((\w+), \d+\) as \w+")


def test_fields_of_graphs_are_in_the_lines(assembly: Assembly, capsys: pytest.CaptureFixture[str]) -> None:
    """Each field is a number in every line that the query selects, so that its mean is that of them all."""
    written = lines(capsys, in_rollout=False)
    queries = [each["properties"]["query"] for each in widgets(assembly) if each["type"] == "log"]
    assert len(queries) == 11 + (not assembly.settings.head.is_off)
    for query in queries:
        match = QUERY.fullmatch(query)
        assert match, query
        selected = [line for line in written if match["filter"] in line]
        assert selected, query
        assert not STATISTIC.sub("", match["stats"]).strip(", "), query
        for field in (name for names in STATISTIC.findall(match["stats"]) for name in names if name):
            assert field == "*" or all(isinstance(line[field], int | float) for line in selected), query
        assert match["by"] is None or all(isinstance(line[match["by"]], str) for line in selected), query


def test_a_query_is_one_selected_line_whatever_its_release(capsys: pytest.CaptureFixture[str]) -> None:
    for in_rollout in (False, True):
        written = lines(capsys, in_rollout=in_rollout)
        field = re.fullmatch(r"filter ispresent\((\w+)\)", REQUEST)
        assert field
        selected = [line for line in written if field[1] in line]
        assert len(selected) == len(list(traces(in_rollout=in_rollout)))
        assert {line["source"] for line in selected} == {DISTILLED, HEAD, BASE, STATIC}


def test_metrics_of_rollouts_are_written_while_one_runs(capsys: pytest.CaptureFixture[str]) -> None:
    read = {
        *canary.METRICS.values(),
        *canary.EXPLORED.values(),
        *(canary.BY_HEAD, canary.PROCESSES, canary.REPEATED, canary.FALLBACK, canary.HEAD_ANSWERS),
    }
    written = emitted(lines(capsys, in_rollout=True))
    assert {name for name, dimensions in written if dimensions == OF_RELEASE} == read
    # They are billed, so that none is left afterwards.
    assert {dimensions for _, dimensions in emitted(lines(capsys, in_rollout=False))} == {SERVICE}


def test_a_rollout_gets_a_value_of_every_query(capsys: pytest.CaptureFixture[str]) -> None:
    """Its rates count the good ones, too: the zeros."""
    written = lines(capsys, in_rollout=True)
    counted: dict[str, list[float]] = {}
    for line in written:
        for _, datum in parse(json.dumps(line)):
            if {each["Name"] for each in datum["Dimensions"]} == OF_RELEASE:
                counted.setdefault(datum["MetricName"], []).extend(datum["Values"])
    # All but the throttled one, and but those of the head.
    assert sorted(counted["Fallback"]) == [0, 0, 0, 1, 1]
    assert sorted(counted["HeadAnswers"]) == [0, 0, 0, 0, 0, 0, 1]
    assert sorted(counted["CanaryFallback"]) == [0, 1, 1]


def test_shares_are_of_what_is_written_for_each_query(assembly: Assembly) -> None:
    """An average of events would be 1, however few there are."""
    assert SHARES.keys() == EVENTS
    assert set(SHARES.values()) <= MEASURES.keys()
    averages = {
        alarm.properties["MetricName"]
        for alarm in assembly.resources("AWS::CloudWatch::Alarm")
        if alarm.properties.get("Statistic") == "Average"
    }
    assert averages - {"HeadDifference"} == {"Fallback", "RouteErrors"}
