"""Workers that run schedules in parallel, each on its own servers."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

from local.state import State
from stacks.settings import PROJECT
from tests.engine.engine import Engine
from tests.engine.system import Variant
from tests.faults.run import Run
from tests.faults.schedule import Schedule
from tests.faults.variants import synthesize

# A job takes hours of Bedrock's time, and a few seconds here: enough to destroy it while it runs.
TIME_SCALE = 3000
WAIT_SCALE = 0.1


@dataclass(frozen=True)
class Result:
    """The result of one schedule."""

    seed: int
    seconds: float
    answers: int
    problems: Sequence[str]
    story: Sequence[str]


def run(seeds: Sequence[int], workers: int) -> Iterator[Result]:
    """Run schedules in parallel, each worker on its own servers, and yield their results as they end."""
    folder = PROJECT / ".cache" / f"faults-{os.getpid()}"
    context = multiprocessing.get_context("spawn")
    processes: list[multiprocessing.process.BaseProcess] = []
    try:
        variants = synthesize(folder)
        waiting, done = context.Queue(), context.Queue()
        for seed in [*seeds, *([None] * workers)]:
            waiting.put(seed)
        processes = [
            context.Process(target=_work, args=(waiting, done, variants, folder)) for _ in range(workers)
        ]
        for process in processes:
            process.start()
        for _ in seeds:
            yield _next(done, processes)
    finally:
        for process in processes:
            process.join(300)
            process.terminate()
        shutil.rmtree(folder, ignore_errors=True)


def _next(done: Queue[Result], processes: Sequence[multiprocessing.process.BaseProcess]) -> Result:
    while done.empty():
        if not any(process.is_alive() for process in processes):
            raise RuntimeError("The workers ended before their schedules did.")
        time.sleep(0.2)
    return done.get()


def _work(
    waiting: Queue[int | None], done: Queue[Result], variants: Mapping[str, Variant], parent: Path
) -> None:
    # If it is terminated, it still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        engine = Engine(State(Path(folder)), time_scale=TIME_SCALE, wait_scale=WAIT_SCALE)
        try:
            while (seed := waiting.get()) is not None:
                done.put(_result(engine, variants, seed))
        finally:
            engine.close()


def _result(engine: Engine, variants: Mapping[str, Variant], seed: int) -> Result:
    began, schedule = time.monotonic(), Run(engine, variants, Schedule.of(seed))
    try:
        schedule.run()
    except Exception:  # an error of the run itself counts as a failure, with its seed
        schedule.problems.append(traceback.format_exc())
    return Result(seed, time.monotonic() - began, schedule.answers, schedule.problems, schedule.story)
