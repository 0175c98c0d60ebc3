"""What the router adds to a model call, compared with a bare call, AWS's routing sample and LiteLLM.

    python -m benchmarks.router                      measures, prints the tables of README.md
    python -m benchmarks.router --turns 1            a short run
    python -m benchmarks.router --without litellm    if LiteLLM can't be installed

All approaches ask the same student of the Bedrock stand-in over TLS on loopback, each in its own process, in
turns, with no query twice. Two loads: one caller, whom the stand-in answers at once; and a constant rate of
queries, which the stand-in answers in a model's time. Figures are without the model's time. A measurement
that fails is told, and the others are reported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.approaches import APPROACHES, CONNECTIONS, Ask
from benchmarks.standin import FIRST_TOKEN_MS, FUNCTION, PROJECT, TOKENS_A_SECOND, Where, standin

QUERY = "red car number"
# LiteLLM needs 20 ms of CPU time a query, so that a core is half busy.
RATE = 20
QUERIES, TURNS, STARTS, WARM = 400, 3, 12, 40
ONE, STEADY, PUBLISHED = "one caller", f"{RATE} a second", "the published format"
type Run = Mapping[str, Any]


# One measurement, in its own process.


def measure(ask: Ask, queries: int, rate: float) -> dict[str, Any]:
    """Ask different queries, one after another or at a rate; return latencies, CPU time and memory."""
    # Metrics and logs are discarded: in Lambda, another process handles them.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        # The connections of this load are then open.
        _asked(ask, "warm", WARM, rate)
        cpu = time.process_time()
        took, replies = _asked(ask, QUERY, queries, rate)
        cpu = time.process_time() - cpu
    return {
        "ms": took,
        "tokens": max((reply.tokens or 0) for reply in replies),
        "others": sum(not reply.from_student for reply in replies),
        "cpu_ms": cpu / queries * 1000,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _asked(ask: Ask, text: str, queries: int, rate: float) -> tuple[list[float], list[Any]]:
    """Return the milliseconds and the reply of each query."""
    return _at_rate(ask, text, queries, rate) if rate else _one_by_one(ask, text, queries)


def _one_by_one(ask: Ask, text: str, queries: int) -> tuple[list[float], list[Any]]:
    took, replies = [], []
    for number in range(queries):
        began = time.perf_counter()
        replies.append(ask(f"{text} {number}"))
        took.append((time.perf_counter() - began) * 1000)
    return took, replies


def _at_rate(ask: Ask, text: str, queries: int, rate: float) -> tuple[list[float], list[Any]]:
    """Ask at a constant rate, without waiting for earlier answers."""

    def one(number: int, due: float) -> tuple[float, Any]:
        # Counted from the due time, so that a wait for a thread counts too.
        reply = ask(f"{text} {number}")
        return (time.perf_counter() - due) * 1000, reply

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        begun, start = [], time.perf_counter()
        for number in range(queries):
            due = start + number / rate
            time.sleep(max(due - time.perf_counter(), 0))
            begun.append(pool.submit(one, number, due))
        found = [future.result() for future in begun]
    return [milliseconds for milliseconds, _ in found], [reply for _, reply in found]


def initialise(approach: str, where: Where) -> dict[str, Any]:
    """Return the CPU milliseconds of an approach's setup; "boto3" is only its import and a client."""
    os.environ |= where.variables
    began = time.process_time()
    if approach == "boto3":
        where.client()
    elif approach == "ours":
        # As in Lambda: with its two connections.
        importlib.import_module("router.handler")
    else:
        APPROACHES[approach](where)
    return {"ms": (time.process_time() - began) * 1000}


# The run.


class Measurements:
    """Measurements of the approaches, each in a new process."""

    def __init__(self, pythons: Mapping[str, Path]) -> None:
        """`pythons` are the interpreters of approaches that need other packages."""
        self.runs: dict[tuple[str, str], list[Run]] = {}
        self._pythons = pythons

    def add(
        self, name: str, approach: str, where: Where, turn: int, queries: int = 0, rate: float = 0
    ) -> None:
        """Measure an approach: its setup, or with `queries` its latency. Tell it if the process fails."""
        arguments = [approach, where.url, where.model, where.ca_bundle, str(queries), str(rate)]
        python = str(self._pythons.get(approach, sys.executable))
        done = subprocess.run(  # noqa: S603  # our own program
            [python, "-m", "benchmarks.router", "--measure", *arguments],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **FUNCTION},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"# {approach}, {name}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
            return
        found = {**json.loads(done.stdout.splitlines()[-1]), "turn": turn}
        self.runs.setdefault((name, approach), []).append(found)

    def all(self, approaches: Sequence[str], turns: int, queries: int) -> None:
        """Measure all approaches under both loads, and their setup, in turns."""
        with standin() as (student, reasoning), standin(**AT_ONCE) as (quick, _):
            for turn in range(turns):
                print(f"# turn {turn + 1} of {turns}", file=sys.stderr)
                for approach in approaches:
                    self.add(ONE, approach, quick, turn, queries)
                for approach in approaches:
                    self.add(STEADY, approach, student, turn, queries, RATE)
                self.add(PUBLISHED, "bare", reasoning, turn, queries, RATE)
                for _ in range(math.ceil(STARTS / turns)):
                    for approach in ("boto3", *approaches):
                        self.add("start", approach, quick, turn)


AT_ONCE = {"first_token_ms": 0.0, "tokens_a_second": math.inf}


def with_litellm() -> Path:
    """Return the Python of LiteLLM's environment, created on first use; LiteLLM needs other versions."""
    folder = PROJECT / ".cache" / "benchmark-litellm"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        for requirements in ("lambda/requirements.txt", "benchmarks/requirements.txt"):
            command = [
                *(str(python), "-m", "pip", "install", "-q"),
                *("--require-hashes", "--only-binary", ":all:"),
            ]
            subprocess.run([*command, "-r", str(PROJECT / requirements)], check=True)  # noqa: S603  # our own command
        (folder / ".installed").touch()
    return python


# The report.


def report(runs: Mapping[tuple[str, str], Sequence[Run]]) -> str:
    """Return the tables of README.md, from what was measured."""
    tokens = max(
        (run["tokens"] for (name, _), found in runs.items() if name == STEADY for run in found), default=0
    )
    lines = [
        "| load | approach | p50 ms | p99 ms | CPU ms | times the CPU of bare | MB | queries |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, model in ((ONE, 0.0), (STEADY, _model_ms(tokens))):
        for approach in APPROACHES:
            if found := runs.get((name, approach)):
                lines.append(_row(name, approach, found, runs.get((name, "bare"), ()), model))
    lines += ["", *_starts(runs), "", *_end_to_end(runs, tokens), ""]
    others = {
        approach: sum(run["others"] for run in found)
        for (_, approach), found in runs.items()
        if "others" in found[0]
    }
    lines += [
        f"{approach}: {number} answers were not the student's."
        for approach, number in others.items()
        if number
    ]
    lines.append(f"Python {platform.python_version()}, {platform.machine()}.")
    return "\n".join(lines)


def _row(load: str, approach: str, found: Sequence[Run], bare: Sequence[Run], model: float) -> str:
    took = [one - model for run in found for one in run["ms"]]
    cpu = statistics.median(run["cpu_ms"] for run in found)
    # Compared within a turn, so that other load on the machine affects both. One of both may have failed.
    theirs = {run["turn"]: run["cpu_ms"] for run in bare}
    ratios = [run["cpu_ms"] / theirs[run["turn"]] for run in found if run["turn"] in theirs]
    ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
    return (
        f"| {load} | {approach} | {part(took, 0.5):.2f} | {part(took, 0.99):.2f} | {cpu:.2f} | {ratio} | "
        f"{statistics.median(run['megabytes'] for run in found):.0f} | {len(took):,} |"
    )


def _starts(runs: Mapping[tuple[str, str], Sequence[Run]]) -> Iterable[str]:
    yield "| start | CPU ms | more than boto3 and a client |"
    yield "|---|---:|---:|"
    times = {
        approach: [run["ms"] for run in found] for (name, approach), found in runs.items() if name == "start"
    }
    for approach, found in times.items():
        middle = statistics.median(found)
        more = middle - statistics.median(times.get("boto3", [math.nan]))
        yield f"| {approach} | {middle:.0f} | {'' if approach == 'boto3' else f'{more:+.0f}'} |"


def _end_to_end(runs: Mapping[tuple[str, str], Sequence[Run]], tokens: int) -> Iterable[str]:
    if (STEADY, "ours") in runs and (PUBLISHED, "bare") in runs:
        published = runs[PUBLISHED, "bare"]
        mine, theirs = (
            part([one for run in found for one in run["ms"]], 0.5)
            for found in (runs[STEADY, "ours"], published)
        )
        yield (
            f"End to end: ours {mine:.0f} ms (at most {tokens} output tokens), a bare call in the published "
            f"student's answer format {theirs:.0f} ms ({published[0]['tokens']} tokens): "
            f"**{mine / theirs:.2f}**."
        )


def _model_ms(tokens: int) -> float:
    return FIRST_TOKEN_MS + tokens / TOKENS_A_SECOND * 1000


def part(values: Sequence[float], share: float) -> float:
    """Return a quantile."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> int:
    """Measure all approaches in turns and print the tables, also of a run that was interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=QUERIES, help="in each measurement")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--without", action="append", default=[], choices=APPROACHES)
    parser.add_argument("--measure", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        approach, url, model, ca_bundle, queries, rate = options.measure
        where = Where(url, model, ca_bundle)
        if int(queries):
            found = measure(APPROACHES[approach](where), int(queries), float(rate))
        else:
            found = initialise(approach, where)
        print(json.dumps(found))
        return 0
    chosen = [name for name in APPROACHES if name not in options.without]
    measurements = Measurements({"litellm": with_litellm()} if "litellm" in chosen else {})
    try:
        measurements.all(chosen, options.turns, options.queries)
    except KeyboardInterrupt:
        print("# interrupted", file=sys.stderr)
    print(report(measurements.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
