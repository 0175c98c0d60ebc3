"""What a month costs, by the router's own log lines and metrics."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from distilled_router.cost.estimate import estimate
from distilled_router.cost.lines import Case, Volume
from distilled_router.cost.prices import Prices
from distilled_router.task.task import Task
from operate import cost, router_lines
from operate.console import Terminal
from operate.cost_volume import Counted
from operate.month import Charge, Month
from stacks.costs import deployed, spec
from stacks.settings import ENVIRONMENTS, Settings, load

NAMES = sorted(path.stem for path in ENVIRONMENTS.glob("*.toml"))
SUBNETS = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]


def changed(name: str, **tables: dict[str, Any]) -> Settings:
    """Return an environment's settings with other values."""
    values = load(name).model_dump()
    for table, fields in tables.items():
        values[table] = {**(values[table] or {}), **fields}
    return Settings.model_validate(values)


def month(settings: Settings, queries: int = 1_000_000) -> Month:
    case = Case(spec(settings), Volume(queries=1_000), Task.load(), Prices.load())
    return Month(settings, deployed(settings), case, queries)


def charges(settings: Settings, queries: int = 1_000_000) -> dict[str, Charge]:
    """Return the charges of a month by name."""
    return {one.name: one for one in month(settings, queries).charges()}


def test_the_line_of_a_query_is_counted_as_the_router_writes_it() -> None:
    settings = load("dev")
    found = router_lines.query(settings)
    owner = ("service", settings.owner)
    assert ("Latency", (owner,)) in found.series
    assert ("CostUsd", (owner,)) in found.series
    assert 300 < found.size < 500
    how = charges(settings)["log ingestion"].busy.how
    assert f"router {found.size:,}," in how


def test_queries_that_are_logged_make_longer_lines() -> None:
    quiet, loud = load("dev"), changed("dev", router={"log_queries": True})
    assert router_lines.query(loud).size > router_lines.query(quiet).size + 50


def test_each_series_of_the_code_is_billed() -> None:
    settings = load("dev")
    found = month(settings)
    series = router_lines.query(settings).series
    assert series == {(name, (("service", settings.owner),)) for name in ("Latency", "Fallback", "CostUsd")}
    assert found.series == 3
    assert charges(settings)["metrics"].busy.usd == pytest.approx(0.90)
    assert charges(settings)["metrics"].idle.usd == 0


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_a_million_queries_cost_at_most_15_dollars(name: str) -> None:
    """With all alarms and graphs, and with no query answered from a cache: it was 33 to 36 dollars."""
    found = charges(load(name))
    assert sum(one.busy.usd for one in found.values()) <= 15
    assert found["alarms"].busy.usd == pytest.approx(1.80)
    assert found["dashboard"].busy.usd == 3


def test_series_of_a_rollout_are_paid_while_it_lasts() -> None:
    """The candidate's and the live release's, by the hour; nothing of them is paid for otherwise."""
    settings = load("dev")
    rolling, normal = (router_lines.query(settings, in_rollout=each).series for each in (True, False))
    of_release = {name for name, dimensions in rolling if "release" in dict(dimensions)}
    assert {"CanaryErrors", "CanaryFallback", "CanaryInvalidOutput", "CanaryProcesses"} < of_release
    assert len(rolling - normal) == len(of_release)
    found = month(settings).rollout(73)
    assert found.usd == pytest.approx(2 * len(of_release) * 0.30 / 10)


@pytest.mark.parametrize("name", NAMES)
def test_half_the_queries_cost_half_of_what_grows_with_them(name: str) -> None:
    settings = load(name)
    whole, half = charges(settings), charges(settings, 500_000)
    for grows in ("tokens", "HTTP API", "data out"):
        assert half[grows].busy.usd == pytest.approx(whole[grows].busy.usd / 2)
        assert whole[grows].idle.usd == 0
    for fixed in ("alarms", "dashboard", "KMS key", "model storage", "S3 storage"):
        assert half[fixed].busy == whole[fixed].busy
        assert whole[fixed].idle.usd == whole[fixed].busy.usd


def test_lambda_is_paid_by_time_and_memory() -> None:
    """416 ms of 1 GB, at 0.0000133334 USD a GB-second, a million times; 0.20 USD for the requests."""
    found = charges(changed("dev", router={"memory_mb": 1024}))
    assert found["Lambda time"].busy.usd == pytest.approx(5.55, abs=0.05)
    assert found["Lambda requests"].busy.usd == pytest.approx(0.20, abs=0.001)
    half = charges(changed("dev", router={"memory_mb": 512}))["Lambda time"].busy.usd
    assert half == pytest.approx(5.55 / 2, abs=0.05)


@pytest.mark.parametrize(("queries", "traces"), [(1_000_000, 840_000), (100_000_000, 7_500_000)])
def test_traces_are_the_first_of_each_second_and_a_part_of_the_others(queries: int, traces: int) -> None:
    found = charges(changed("dev", router={"tracing": True}), queries)["X-Ray traces"]
    assert found.busy.usd == pytest.approx(traces * 5e-6, rel=0.01)
    assert charges(changed("dev", router={"tracing": False}), queries)["X-Ray traces"].busy.usd == 0


def test_each_vpc_endpoint_is_paid_in_each_subnet() -> None:
    """36.50 dollars a zone: five endpoints, 730 hours, 0.01 dollars."""
    endpoints = {"vpc_id": "vpc-0123456789abcdef0", "route_table_ids": ["rtb-0123456789abcdef0"]}
    network = {"subnet_ids": SUBNETS, "security_group_ids": ["sg-0123456789abcdef0"]}
    found = charges(changed("dev", network={**network, "endpoints": endpoints}))["VPC endpoints"]
    assert found.idle.usd == found.busy.usd == pytest.approx(2 * 36.5)
    assert "VPC endpoints" not in charges(changed("dev", network=network))


def test_provisioned_throughput_is_paid_by_the_hour_and_its_tokens_are_not() -> None:
    bought = {"kind": "provisioned", "provisioned": {"model_units": 2, "hourly_price_usd": 10.0}}
    found = charges(changed("dev", endpoint=bought))
    assert found["model hosting"].idle.usd == pytest.approx(2 * 730 * 10)
    assert found["tokens"].busy.usd == 0


def test_a_key_of_your_own_is_not_paid_by_the_stacks() -> None:
    key = "arn:aws:kms:us-east-1:444455556666:key/00000000-0000-0000-0000-000000000000"
    assert charges(changed("dev", encryption={"key_arn": key}))["KMS key"].idle.usd == 0


def test_another_model_costs_its_own_tokens_and_time_and_stores_nothing() -> None:
    settings = load("dev")
    found, whole = charges(settings), month(settings)
    distilled = sum(one.busy.usd for one in found.values())
    base = whole.with_model(settings.router.base_model, full=True)
    teacher = whole.with_model(settings.distillation.teacher, full=True)
    assert distilled < base < teacher
    # 1,000 tokens: 567 in and 34 out, at 0.80 and 3.20 dollars a million.
    kept = distilled - sum(found[name].busy.usd for name in ("tokens", "model storage", "Lambda time"))
    time = 0.5 * (0.383 + 34 / 183) * 13.3334
    assert teacher == pytest.approx(kept + 567 * 0.80 + 34 * 3.20 + time, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(name: str, width: int) -> None:
    """Nothing is cut off, and all numbers are in their rows."""
    settings, output = load(name), StringIO()
    found, whole = (
        estimate(spec(settings), Volume(queries=1_000), Task.load(), Prices.load()),
        month(settings),
    )
    release = cost.for_each_release(whole, Path())
    counted = Counted(Volume(queries=1_000), "1,000 rows")
    cost.show(whole, counted, found, release, Terminal(width=width, file=output))
    rows = [line for line in output.getvalue().splitlines() if "  " in line]
    assert max(map(len, rows)) <= width
    assert "…" not in output.getvalue()
    shown = {match[1]: match for line in rows if (match := re.match(r"(\S+(?: \S+)*?)  +([\d.,]+)  ", line))}
    assert {one.name for one in whole.charges()} <= shown.keys()


def test_an_unknown_price_leaves_the_month_unknown() -> None:
    settings, output = load("dev"), StringIO()
    prices = replace(Prices.load(), services={})
    case = Case(spec(settings), Volume(queries=1_000), Task.load(), prices)
    whole = Month(settings, deployed(settings), case, 1_000)
    found = estimate(spec(settings), Volume(queries=1_000), Task.load(), prices)
    cost.show(whole, Counted(Volume(queries=1), ""), found, found.once, Terminal(width=80, file=output))
    assert re.search(r"together +unknown +unknown", output.getvalue())
