"""The report of the router's benchmark, and the plot of its load test."""

from __future__ import annotations

import re
from typing import Any

from benchmarks import load
from benchmarks.router import ONE, report


def test_cpu_time_is_compared_within_a_turn_though_a_measurement_failed() -> None:
    """The machine was twice as busy in the second turn, and the first measurement of ours failed."""

    def run(turn: int, cpu_ms: float) -> dict[str, Any]:
        return {"turn": turn, "cpu_ms": cpu_ms, "ms": [1.0], "tokens": 0, "others": 0, "megabytes": 1.0}

    told = report({(ONE, "ours"): [run(1, 4.0)], (ONE, "bare"): [run(0, 1.0), run(1, 2.0)]})
    assert "| one caller | ours | 1.00 | 1.00 | 4.00 | 2.00 | 1 | 1 |" in told


def test_line_of_the_budget_is_unlike_the_guides() -> None:
    names = ["all is well", "Bedrock is down"]
    times = {"p50": [400.0] * 2 * load.SECONDS, "p99": [600.0] * 2 * load.SECONDS}
    svg = load.latency_plot(times, names, 40).decode()
    assert svg.count(load.BUDGET) > 0
    assert load.BUDGET != load.INK
    budget = re.findall(r'<path d="M?[\d.]+ ([\d.]+) [^"]*" class="line[^"]*"', svg)[-1]
    guides = re.findall(r"M[\d.]+ ([\d.]+) h[\d.]+", svg)
    assert len(guides) == 3
    assert budget not in guides
