"""Probes: hold-out queries for the candidate and the live release if a step had too few requests.

They go directly to the model endpoints. The router would choose a release by the query, and count them as
users' requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import boto3
from botocore.config import Config

from distilled_router.aws.objects import Published
from distilled_router.data.conversation import examples
from distilled_router.env import RolloutEnv
from distilled_router.task.converse import CONCURRENCY, NoReplyError, Prompt, ask
from distilled_router.task.task import InvalidOutput, Task
from rollout.metrics import Count, ReleaseMetrics

# Seconds after which no more probes start: the function's timeout is five minutes, and one call may take
# three tries of 15 s.
SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Asks the first queries of a hold-out set. `clock` returns seconds and never goes back."""

    runtime: Any
    s3: Any
    task: Task
    bucket: str
    holdout_key: str
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, env: RolloutEnv, s3: Any) -> Probes:
        """Create the function's probes. Like the router, they retry calls that were throttled or failed."""
        config = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5, read_timeout=15)
        return cls(
            runtime=boto3.client("bedrock-runtime", config=config),
            s3=s3,
            task=Task.load(),
            bucket=env.bucket,
            holdout_key=env.holdout_key,
        )

    def ask(self, wanted: Mapping[str, int], holdout_sha256: str = "") -> dict[str, ReleaseMetrics]:
        """Ask each endpoint the wanted number of queries in parallel, and return the metrics by endpoint.

        A shorter hold-out set is repeated. As in the router's metrics, refused queries and invalid output
        count as fallbacks. Any other failed call says nothing about the release. Raises ReplacedError if the
        hold-out set has another SHA-256 than the one given.
        """
        end = self.clock() + SECONDS
        queries = self._queries(max(wanted.values(), default=0), holdout_sha256)
        asked = [
            (endpoint, query)
            for place, query in enumerate(queries)
            for endpoint, count in wanted.items()
            if place < count
        ]
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            found = pool.map(lambda one: self._answer(one[0], one[1], end), asked)
            pairs = [(endpoint, answer) for (endpoint, _), answer in zip(asked, found, strict=True)]
        return {
            endpoint: _metrics(answer for of, answer in pairs if of == endpoint and answer)
            for endpoint in wanted
        }

    def _queries(self, count: int, sha256: str) -> Sequence[str]:
        if not count:
            return ()
        content = Published(self.bucket, self.holdout_key, sha256).read(self.s3)
        lines = (line.decode() for line in content.splitlines())
        first = [example.query for example in islice(examples(lines, self.task), count)]
        return list(islice(cycle(first), count))

    def _answer(self, endpoint: str, query: str, end: float) -> ReleaseMetrics | None:
        if self.clock() > end:
            return None
        try:
            reply = ask(self.runtime, endpoint, Prompt.student(self.task), query)
        except NoReplyError as error:
            if error.reason == "refused":
                return _probe(failed=True)
            return ReleaseMetrics(unasked=(error.reason,))
        model = Count() if reply.latency_ms is None else Count(reply.latency_ms, 1)
        try:
            reply.weights(self.task)
        except InvalidOutput:
            return _probe(failed=True, invalid=True, model=model)
        return _probe(model=model)


def _probe(*, failed: bool = False, invalid: bool = False, model: Count = Count()) -> ReleaseMetrics:
    counts = {"fallback_rate": Count(failed, 1), "invalid_output_rate": Count(invalid, 1)}
    return ReleaseMetrics(counts=counts, model=model, probes=1)


def _metrics(answers: Iterable[ReleaseMetrics]) -> ReleaseMetrics:
    return sum(answers, ReleaseMetrics())
