"""Probes: hold-out queries for the candidate and the live release in each round.

They go directly to the model endpoints. The router would choose a release by the query, and count them as
users' requests.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

from distilled_router.aws.objects import Published
from distilled_router.data.conversation import Example, examples
from distilled_router.data.similarity import families
from distilled_router.env import RolloutEnv
from distilled_router.task.converse import CONCURRENCY, NoReplyError, Prompt, ask
from distilled_router.task.task import InvalidOutput, Task
from rollout.evidence import Answer, Probed

logger = Logger()

# Seconds after which no more probes start: the function's timeout is five minutes, and one call may take
# three tries of 15 s.
SECONDS = 120.0
# Failed calls after which no more probes start: with more, even a round of 500 probes is repeated.
MOST_UNASKED = 25
# Rows of the hold-out set that a rollout draws from, at random: as many as the six rounds of the prod example
# ask. Finding the families of more takes a small function too long.
MOST_ROWS = 3_000


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Asks queries of a hold-out set. `clock` returns seconds and never goes back."""

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

    def ask(
        self,
        endpoints: Sequence[str],
        count: int,
        *,
        after: int = 0,
        latency_margin: float,
        digest: str,
        holdout_key: str = "",
        holdout_sha256: str = "",
    ) -> Probed:
        """Ask the endpoints of the candidate, and of the live release if there is one, the same queries.

        Args:
            endpoints: of the candidate and of the live release.
            count: the number of queries.
            after: queries that earlier rounds asked.
            latency_margin: by how much the candidate's model may be slower than the live release's.
            digest: the candidate, whose digest decides the order in which the whole hold-out set is asked.
            holdout_key: of the attempt's hold-out set; empty for the one that the stack names.
            holdout_sha256: of the hold-out set; empty if unknown.

        Raises:
            ReplacedError: The hold-out set has another SHA-256.
        """
        end = self.clock() + SECONDS
        holdout = Published(self.bucket, holdout_key or self.holdout_key, holdout_sha256)
        order, kin = self._order(digest, holdout)
        drawn = [order[place % len(order)] for place in range(after, after + count)] if order else []
        unasked: list[Answer] = []

        def answers(example: Example) -> list[Answer]:
            if self.clock() > end or len(unasked) > MOST_UNASKED:
                return []
            given = [self._answer(endpoint, example) for endpoint in endpoints]
            unasked.extend(answer for answer in given if answer.unasked)
            return given

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            found = list(pool.map(answers, drawn))
        return Probed.of(list(takewhile(bool, found)), kin, latency_margin)

    def _order(self, digest: str, holdout: Published) -> tuple[list[Example], int]:
        """Return the hold-out set in the candidate's order, and the number of its families.

        One row of each family comes first, then a second one of each that has one, and so on.
        """
        lines = [line.decode() for line in holdout.read(self.s3).splitlines() if line.strip()]
        # The same in every round.
        chance = random.Random(digest)  # noqa: S311  # no secret
        drawn = list(examples(chance.sample(lines, min(len(lines), MOST_ROWS)), self.task))
        kin = families([example.query for example in drawn])
        earlier: Counter[int] = Counter()
        turns = []
        for place, family in enumerate(kin):
            turns.append((earlier[family], place))
            earlier[family] += 1
        return [drawn[place] for _, place in sorted(turns)], len(earlier)

    def _answer(self, endpoint: str, example: Example) -> Answer:
        try:
            reply = ask(self.runtime, endpoint, Prompt.student(self.task), example.query)
        except NoReplyError as error:
            return Answer(refused=True) if error.reason == "refused" else Answer(unasked=error.reason)
        except Exception as error:
            return _unexpected(error)
        try:
            weights = reply.weights(self.task)
        except InvalidOutput:
            return Answer(invalid=True, latency_ms=reply.latency_ms)
        except Exception as error:
            return _unexpected(error)
        right = self.task.is_dominant_right(example.weights, weights)
        return Answer(wrong=not right, latency_ms=reply.latency_ms)


def _unexpected(error: Exception) -> Answer:
    """Return what the router counts as an error: the same code could not read the release's answer."""
    # The text of an unknown error may quote the query, so only its type is logged.
    logger.error("unexpected error", error=type(error).__name__)
    return Answer(error=True)
