"""The classification head: how right and how fast it is, and what it accepts that it should not.

    python -m benchmarks.head                   measures, prints the tables of README.md
    python -m benchmarks.head --only quality    one of quality, real, cpu, load, bytes, robustness,
                                                training and merging
    python -m benchmarks.head --threshold 0.04  robustness at another threshold than the largest possible

Sample data are the project's own; real queries and labels are those beside the project, if they are there.
Times are CPU times. The exit status is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean, quantiles

from benchmarks import head_data as data
from benchmarks.similarity import MISSED, marked
from distilled_router.data.conversation import Example
from distilled_router.head import artifact
from distilled_router.head.artifact import Trained
from distilled_router.head.calibration import MOST_RISK
from distilled_router.head.categories import MOST_CATEGORIES, categories, distance
from distilled_router.head.defer import negatives
from distilled_router.head.model import Head
from distilled_router.head.training import Training
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task

FOLDS = 5
# An answer is wrong if its dominant label is, or if it is further from the label than this.
WRONG = 0.1
LONG, LONGER = 512, 10_000
ROWS = (2_200, 15_000)


@dataclass(frozen=True)
class Bars:
    """Limits: the largest error and the least share of right dominant labels, of all and the surest half."""

    error: float
    dominant: float
    half_error: float
    half_dominant: float


SAMPLE_BARS = Bars(0.035, 0.92, 0.005, 0.99)
REAL_BARS = Bars(0.075, 0.80, 0.045, 0.0)
MOST_MS = {"p50": 0.5, "p99": 1.0, "hard": 1.0}
MOST_LOAD_MS, MOST_START_MS, MOST_MEGABYTES = 5.0, 10.0, 8.0
MOST_SECONDS_A_PASS, MOST_STATE_MEGABYTES = 5.0, 6.0


def trained(rows: Sequence[Example], task: Task) -> Trained:
    """Train a head to the end."""
    training = Training.start(data.labelled(rows), negatives(), task)
    while not training.is_finished:
        training.run_pass()
    return training.trained()


def written(head: Trained) -> bytes:
    return artifact.write(head, threshold=None, about={})


def read(head: Trained, task: Task) -> Head:
    """Return a head as the router has it, by way of its file."""
    return Head.read(written(head), task.labels)


@cache
def sample_head() -> Head:
    task = Task.load()
    return read(trained(data.sample("training", task), task), task)


# How right it is


@dataclass(frozen=True)
class Answered:
    """One answer: its risk, its error, and whether the dominant label is right."""

    risk: float
    error: float
    right: bool

    @property
    def is_wrong(self) -> bool:
        return not self.right or self.error > WRONG


def answered(head: Head, rows: Sequence[Example], task: Task) -> list[Answered]:
    """Ask a head for all rows."""
    found = []
    for row in rows:
        answer = head.answer(row.query)
        error = fmean(abs(answer.weights[label] - row.weights[label]) for label in task.labels)
        found.append(Answered(answer.risk, error, task.is_dominant_right(row.weights, answer.weights)))
    return found


def scores(name: str, found: Sequence[Answered], bars: Bars) -> Iterator[str]:
    """Yield the table of a set."""
    yield f"| {name} | answers | mean absolute error | dominant label |"
    yield "|---|---:|---:|---:|"
    order = sorted(found, key=lambda one: one.risk)
    half = order[: len(order) // 2]
    for part, some, error, dominant in (
        ("all", order, bars.error, bars.dominant),
        ("surest half", half, bars.half_error, bars.half_dominant),
    ):
        of_error, of_dominant = fmean(one.error for one in some), fmean(one.right for one in some)
        cells = (
            marked(f"{of_error:.4f}", of_error <= error),
            marked(f"{of_dominant:.3f}", of_dominant >= dominant),
        )
        yield f"| {part} | {len(some)} | {' | '.join(cells)} |"


def quality(task: Task) -> Iterator[str]:
    """Yield the table of the sample's hold-out set."""
    yield from scores(
        "sample hold-out", answered(sample_head(), data.sample("holdout", task), task), SAMPLE_BARS
    )


def real(task: Task) -> Iterator[str]:
    """Yield the table of the real labels, by folds of families."""
    rows = data.teacher_labels()
    if not rows:
        yield f"No real labels: {data.REAL} is absent."
        return
    found: list[Answered] = []
    for training, held_out in data.folds(rows, FOLDS, 1):
        found += answered(read(trained(training, task), task), held_out, task)
    yield from scores(f"real labels, {FOLDS} folds of families", found, REAL_BARS)


# How fast it is


def milliseconds(work: Callable[[], object], times: int = 5) -> float:
    """Return the CPU time of some work: the least of several times, which other processes disturb least."""
    taken = []
    for _ in range(times):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return 1_000 * min(taken)


def cpu(task: Task) -> Iterator[str]:
    """Yield the table of CPU time by query."""
    head = sample_head()
    gc.disable()
    holdout = [row.query for row in data.sample("holdout", task)]
    of_queries = [milliseconds(partial(head.answer, query)) for query in holdout]
    parts = quantiles(of_queries, n=100)
    yield "| CPU ms a query | |"
    yield "|---|---:|"
    yield f"| hold-out, p50 | {marked(f'{parts[49]:.2f}', parts[49] <= MOST_MS['p50'])} |"
    yield f"| hold-out, p99 | {marked(f'{parts[98]:.2f}', parts[98] <= MOST_MS['p99'])} |"
    for count in (LONG, LONGER):
        for name, text in data.hard_texts(count).items():
            taken = milliseconds(partial(head.answer, text), 21)
            yield f"| {count:,} characters, {name} | {marked(f'{taken:.2f}', taken <= MOST_MS['hard'])} |"
    gc.enable()


LOADING = """
import gc, resource, sys, time
sys.path[:0] = ["lambda"]
import collections, dataclasses, hashlib, json, re, typing
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
content = open(sys.argv[1], "rb").read()
gc.collect()
before, start = memory(), time.process_time()
from distilled_router.head.model import Head
imported = time.process_time()
head = Head.read(content, tuple(sys.argv[2:]))
read = time.process_time()
head.answer("a red car at night")
print((imported - start) * 1000, (read - imported) * 1000, memory() - before)
"""


def load(task: Task) -> Iterator[str]:
    """Yield the table of what loading takes, each time in a new process."""
    largest = sample_head().trained
    ranks = [tuple(number / 2_016 for number in range(each, each + 4)) for each in range(MOST_CATEGORIES)]
    filled = Trained(
        labels=task.labels,
        categories=tuple((*part[:3], 1 - sum(part[:3])) for part in ranks),
        rows=(largest.rows * 3)[: 15_360 * (MOST_CATEGORIES + 1)],
        scale=largest.scale,
        longest=largest.longest,
        about={},
    )
    yield "| head | bytes | imports: CPU ms | load: CPU ms | import and load, ms | memory: MB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, head in (("sample", largest), ("63 categories", filled)):
        content = written(head)
        imported, loaded, memory = _loading(content, task)
        cells = (
            marked(f"{len(content):,}", len(content) <= artifact.MOST_BYTES),
            f"{imported:.1f}",
            marked(f"{loaded:.1f}", loaded <= MOST_LOAD_MS),
            marked(f"{imported + loaded:.1f}", imported + loaded <= MOST_START_MS),
            marked(f"{memory:.1f}", memory <= MOST_MEGABYTES),
        )
        yield f"| {name} | {' | '.join(cells)} |"


def _loading(content: bytes, task: Task) -> list[float]:
    """Return the least figures of several processes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "head.bin"
        file.write_bytes(content)
        command = [sys.executable, "-c", LOADING, str(file), *task.labels]
        # Bundles have compiled code: the first process compiles it here.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}
        lines = [
            subprocess.run(  # noqa: S603 - our own command
                command, cwd=data.PROJECT, env=environment, check=True, capture_output=True, text=True
            ).stdout
            for _ in range(9)
        ]
    return [min(column) for column in zip(*(map(float, line.split()) for line in lines), strict=True)]


# Whether it is always the same


def same_bytes(task: Task) -> Iterator[str]:
    """Yield the table of heads that must be equal byte by byte."""
    rows = data.labelled(data.sample("training", task))
    training, passes = Training.start(rows, negatives(), task), 0
    while not training.is_finished:
        training.run_pass()
        training, passes = Training.resume(training.state(), rows, negatives(), task), passes + 1
    yield "| training | SHA-256 of the head |"
    yield "|---|---|"
    hashes = [_hash_in_process(seed) for seed in ("1", "2")]
    hashes.append(hashlib.sha256(written(training.trained())).hexdigest())
    names = ("hash seed 1", "hash seed 2", f"killed after each of {passes} passes")
    for name, found in zip(names, hashes, strict=True):
        yield f"| {name} | {marked(found[:16], found == hashes[0])} |"


def _hash_in_process(seed: str) -> str:
    command = [sys.executable, "-m", "benchmarks.head", "--hash"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(  # noqa: S603 - our own command
        command, cwd=data.PROJECT, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


# What it accepts


def robustness(task: Task, threshold: float) -> Iterator[str]:
    """Yield the table of what the head accepts at a threshold."""
    head, variants = sample_head(), Robustness.load(task)
    holdout = data.sample("holdout", task)
    languages = [row.query for row in variants.other_languages]
    long = data.very_long(holdout, variants, task.max_query_characters)
    yield f"| accepted at a risk of {threshold:g} | queries | accepted | accepted and wrong |"
    yield "|---|---:|---:|---:|"
    for name, queries, most in (
        ("no search, real", data.out_of_domain(), 0.03),
        ("no search, of the task", list(variants.out_of_domain), 0.125),
        ("other languages", languages, 0.125),
        ("very long", long, 0.0),
    ):
        if queries:
            share = fmean(head.answer(query).risk <= threshold for query in queries)
            yield f"| {name} | {len(queries)} | {marked(f'{share:.1%}', share <= most)} | |"
    for name, rows, most in (
        ("hold-out", holdout, 1.0),
        ("typos", data.typos(holdout), 0.02),
        ("injections", data.injections(holdout, variants), 0.01),
    ):
        found = answered(head, rows, task)
        accepted = fmean(one.risk <= threshold for one in found)
        wrong = fmean(one.risk <= threshold and one.is_wrong for one in found)
        yield f"| {name} | {len(rows)} | {accepted:.1%} | {marked(f'{wrong:.1%}', wrong <= most)} |"


# What the training takes


def training_time(task: Task) -> Iterator[str]:
    """Yield the table of CPU time, passes and states by number of rows."""
    yield "| rows | categories | CPU s | passes | longest pass, CPU s | state, MB | memory, MB |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for rows in (data.sample("training", task), *(data.many(count, task, 63) for count in ROWS)):
        start, longest, passes = time.process_time(), 0.0, 0
        training = Training.start(data.labelled(rows), negatives(), task)
        state = 0
        while not training.is_finished:
            before = time.process_time()
            training.run_pass()
            longest, passes = max(longest, time.process_time() - before), passes + 1
        seconds, state = time.process_time() - start, len(training.state())
        cells = (
            f"{len(training.trained().categories)} | {seconds:.1f} | {passes}",
            marked(f"{longest:.1f}", longest <= MOST_SECONDS_A_PASS),
            marked(f"{state / 1e6:.1f}", state <= MOST_STATE_MEGABYTES * 1e6),
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e6:.0f}",
        )
        yield f"| {len(rows):,} | {' | '.join(cells)} |"


def merging(task: Task) -> Iterator[str]:
    """Yield the table of what it costs to merge several hundred labels."""
    training, holdout = data.sample("training", task), data.sample("holdout", task)
    yield "| labels | different | categories | distance to the nearest | hold-out error | dominant label |"
    yield "|---|---:|---:|---:|---:|---:|"
    jittered = data.jittered(training, task)
    for name, rows in (("sample", training), ("with jitter", jittered)):
        vectors = [tuple(row.weights[label] for label in task.labels) for row in rows]
        kept = categories(vectors)
        apart = fmean(min(distance(one, each) for each in kept) for one in vectors)
        found = answered(read(trained(rows, task), task), holdout, task)
        yield (
            f"| {name} | {len(set(vectors)):,} | {len(kept)} | {apart:.4f} "
            f"| {fmean(one.error for one in found):.4f} | {fmean(one.right for one in found):.3f} |"
        )
    for most in (127, 31, 15):
        vectors = [tuple(row.weights[label] for label in task.labels) for row in jittered]
        kept = categories(vectors, most)
        apart = fmean(min(distance(one, each) for each in kept) for one in vectors)
        yield f"| with jitter | {len(set(vectors)):,} | {len(kept)} | {apart:.4f} | | |"


def main() -> None:
    """Measure, and print the tables."""
    task = Task.load()
    tables: dict[str, Callable[[Task], Iterator[str]]] = {
        "quality": quality,
        "real": real,
        "cpu": cpu,
        "load": load,
        "bytes": same_bytes,
        "training": training_time,
        "merging": merging,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=(*tables, "robustness"))
    parser.add_argument(
        "--threshold",
        type=float,
        default=MOST_RISK,
        help=f"for robustness; by default the largest, {MOST_RISK}",
    )
    parser.add_argument("--hash", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hash:
        print(hashlib.sha256(written(trained(data.sample("training", task), task))).hexdigest())
        return
    tables["robustness"] = lambda task: robustness(task, given.threshold)
    is_missed = False
    for name, table in tables.items():
        if given.only in (None, name):
            for line in table(task):
                is_missed |= MISSED in line
                print(line, flush=True)
            print()
    print(f"Python {platform.python_version()}, {platform.machine()}.")
    sys.exit(is_missed)


if __name__ == "__main__":
    main()
