"""The report of the router's benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.router import ONE, report


def test_cpu_time_is_compared_within_a_turn_though_a_measurement_failed() -> None:
    """The machine was twice as busy in the second turn, and the first measurement of ours failed."""

    def run(turn: int, cpu_ms: float) -> dict[str, Any]:
        return {"turn": turn, "cpu_ms": cpu_ms, "ms": [1.0], "tokens": 0, "others": 0, "megabytes": 1.0}

    told = report({(ONE, "ours"): [run(1, 4.0)], (ONE, "bare"): [run(0, 1.0), run(1, 2.0)]})
    assert "| one caller | ours | 1.00 | 1.00 | 4.00 | 2.00 | 1 | 1 |" in told
