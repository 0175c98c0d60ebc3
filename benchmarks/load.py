"""The router under constant load while its table and models fail: sources and latencies of its answers.

    python -m benchmarks.load            two and a half minutes; writes the plots of docs/router.md
    python -m benchmarks.load --rate 80  more queries per second

Queries are sent at a constant rate, without waiting for earlier answers, and each query is new. Bedrock is
the stand-in in another process, set up as in `benchmarks.router`; the release table is a double.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

from benchmarks.standin import FUNCTION, PROJECT, Where, standin
from local import control
from local.keys import TOKEN

SECONDS = 15
TIME_BUDGET_MS = 1500
BASE_MODEL, RELEASE = "us.amazon.nova-micro-v1:0", "aaaaaaaaaaaa"
SOURCES = {"distilled": "#2f7ed8", "base": "#e08a1e", "static": "#8a8f98"}
# Readable on white and on black backgrounds.
INK = "#7d838c"
BUDGET = "#e08a1e"


@dataclass(frozen=True)
class Phase:
    """One phase of SECONDS: the stand-in's faults, and the seconds for which the table hangs."""

    name: str
    faults: Sequence[dict[str, Any]] = ()
    table_fails: float | None = None


def phases(student: str) -> tuple[Phase, ...]:
    """Return the failures that the router must handle, with a phase of recovery after each."""
    all_calls = {"operation": "Converse", "count": None}
    healthy = Phase("all is well")
    return (
        healthy,
        Phase("the table hangs", table_fails=5.0),
        healthy,
        Phase("student throttled", [{**all_calls, "kind": "throttled", "modelId": student}]),
        healthy,
        Phase("student hangs", [{**all_calls, "kind": "slow", "milliseconds": 5000, "modelId": student}]),
        healthy,
        Phase("Bedrock is down", [{**all_calls, "kind": "unavailable"}]),
        healthy,
    )


@dataclass(frozen=True)
class Answer:
    """An answer: the second of the run in which its query was due, its latency and its source."""

    second: float
    ms: float
    source: str


def run(where: Where, rate: int) -> list[Answer]:
    """Send queries to a router in this process through all phases, and return the answers."""
    from distilled_router.env import RouterEnv
    from distilled_router.release.route import Route, Share
    from distilled_router.task.task import Task
    from router.assembly import make_router, services
    from tests.unit.router.doubles import TableDouble

    variables = {"TIME_BUDGET_MS": str(TIME_BUDGET_MS), "ROUTE_SECONDS": "2", "BASE_MODEL": BASE_MODEL}
    env = RouterEnv.read({**FUNCTION, **variables})
    table = TableDouble(Route(1, (Share(RELEASE, where.model, 1.0),)))
    bedrock, _ = services(env, where.variables, side_by_side=200)
    router = make_router(env, Task.load(), bedrock=bedrock, dynamodb=table)
    answers: list[Answer] = []

    def ask(number: int, due: float) -> None:
        # Latency is counted from the due time, so it includes waiting for a thread.
        answer = router.handle({"query": f"red car number {number}"})
        now = time.perf_counter()
        answers.append(Answer(due - start, (now - due) * 1000, answer["source"]))

    def warm(number: int) -> None:
        # At the same rate: forty handshakes at once would open the circuit on a busy machine.
        time.sleep(number / rate)
        router.handle({"query": f"warm {number}"})

    with ThreadPoolExecutor(200) as pool:
        list(pool.map(warm, range(rate)))
        start = time.perf_counter()
        for place, phase in enumerate(phases(where.model)):
            _set_faults(where, phase.faults)
            table.fails = phase.table_fails
            for tick in range(rate * SECONDS):
                number = place * rate * SECONDS + tick
                due = start + number / rate
                time.sleep(max(due - time.perf_counter(), 0))
                pool.submit(ask, number, due)
    return sorted(answers, key=lambda answer: answer.second)


def _set_faults(where: Where, faults: Sequence[dict[str, Any]]) -> None:
    url = f"{where.url}/_faults"
    control.call(url, where.token, verify=where.ca_bundle, method="DELETE")
    if faults:
        control.call(url, where.token, verify=where.ca_bundle, method="POST", body=faults)


# Tables and plots.


def table(answers: Sequence[Answer], names: Sequence[str]) -> str:
    """Return a table with a row for each phase."""
    lines = [
        "| | queries | distilled | base | static | unanswered | p50 ms | p99 ms | longest ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    each = len(answers) // len(names)
    for place, name in enumerate(names):
        found = [one for one in answers if int(one.second // SECONDS) == place]
        sources, took = Counter(one.source for one in found), [one.ms for one in found]
        shares = " | ".join(f"{sources[source] / len(found):.0%}" for source in SOURCES)
        lines.append(
            f"| {name} | {len(found)} | {shares} | {each - len(found)} | {_part(took, 0.5):.0f} | "
            f"{_part(took, 0.99):.0f} | {max(took):.0f} |"
        )
    return "\n".join(lines)


def _part(values: Sequence[float], part: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(part * 100) - 1]


_MARKS: Mapping[str, Any] = {"truncate_label": -1, "show_minor_x_labels": False, "x_label_rotation": 20}


def _chart(kind: Callable[..., Any], colors: Sequence[str], title: str, **settings: Any) -> Any:
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground=INK,
        foreground_strong=INK,
        foreground_subtle=INK,
        guide_stroke_color=INK,
        major_guide_stroke_color=INK,
        colors=tuple(colors),
        font_family="system-ui, sans-serif",
        opacity="1",
    )
    return kind(
        style=style,
        js=[],
        width=900,
        height=320,
        title=title,
        legend_at_bottom=True,
        show_dots=False,
        **settings,
    )


def plots(answers: Sequence[Answer], names: Sequence[str], rate: int) -> dict[str, bytes]:
    """Return two SVG files by name, with a point for each second."""
    by_second: dict[int, list[Answer]] = {}
    for one in answers:
        by_second.setdefault(int(one.second), []).append(one)
    seconds = range(SECONDS * len(names))
    times = {
        name: [round(_part([one.ms for one in by_second[second]], part)) for second in seconds]
        for name, part in (("p50", 0.5), ("p99", 0.99))
    }
    sources = _chart(
        pygal.StackedBar,
        list(SOURCES.values()),
        "Answers per second, by source",
        spacing=0,
        margin_right=20,
        **_MARKS,
    )
    _name_seconds(sources, names)
    sources.y_labels = (0, rate / 2, rate)
    for source in SOURCES:
        counts = [Counter(one.source for one in by_second[second]) for second in seconds]
        sources.add(source, [count[source] for count in counts])
    return {"load-latency.svg": latency_plot(times, names, rate), "load-sources.svg": sources.render()}


def latency_plot(times: Mapping[str, Sequence[float]], names: Sequence[str], rate: int) -> bytes:
    """Return the times of each second by series as SVG, below the line of the budget."""
    chart = _chart(
        pygal.Line,
        ["#2f7ed8", "#b4438f", BUDGET],
        f"Milliseconds to an answer, {rate} queries per second",
        range=(0, TIME_BUDGET_MS * 1.1),
        **_MARKS,
    )
    _name_seconds(chart, names)
    # No guide lies under the budget's line.
    chart.y_labels = range(0, TIME_BUDGET_MS, 500)
    for name, values in times.items():
        chart.add(name, values)
    budget = [TIME_BUDGET_MS] * (SECONDS * len(names))
    chart.add(f"the budget, {TIME_BUDGET_MS:,} ms", budget, stroke_style={"width": 2.5})
    svg: bytes = chart.render()
    return svg


def _name_seconds(chart: Any, names: Sequence[str]) -> None:
    """Name the first second of each phase."""
    seconds = range(SECONDS * len(names))
    chart.x_labels = [names[second // SECONDS] if second % SECONDS == 0 else "" for second in seconds]
    chart.x_labels_major = list(names)


def main() -> int:
    """Run the load in a second process, print the table, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=40, help="queries per second")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        url, model, ca_bundle = options.run
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            answers = run(Where(url, model, ca_bundle, os.environ[TOKEN]), options.rate)
        print(json.dumps([vars(answer) for answer in answers]))
        return 0
    with standin() as (student, _):
        command = [sys.executable, "-m", "benchmarks.load", "--rate", str(options.rate), "--run"]
        done = subprocess.run(  # noqa: S603  # our own program
            [*command, student.url, student.model, student.ca_bundle],
            cwd=PROJECT,
            env={**os.environ, TOKEN: student.token},
            capture_output=True,
            text=True,
            check=True,
        )
        names = [phase.name for phase in phases(student.model)]
    answers = [Answer(**one) for one in json.loads(done.stdout.splitlines()[-1])]
    print(table(answers, names))
    for name, picture in plots(answers, names, options.rate).items():
        path = PROJECT / "docs" / name
        path.write_bytes(picture)
        print(path.relative_to(PROJECT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
