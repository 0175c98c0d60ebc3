"""State of one evaluation attempt, in the folder `releases/<digest>-<attempt>/`.

Stored answers are not requested again, so that an interrupted attempt continues where it stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from distilled_router.aws.objects import Folder
from distilled_router.env import EvaluationEnv
from distilled_router.release.gate import Gate
from distilled_router.release.route import releases_folder
from distilled_router.release.table import Release
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.intervals import RESAMPLES
from evaluation.metrics import Answer, Question

PLAN = "plan.json"
QUESTIONS, ANSWERS = "questions/", "answers/"

type Plan = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Clients and settings of an evaluation.

    Attributes:
        base_model: answers for comparison; empty for none.
        slice_queries: see `questions`.
        judge: grades the candidate's answers; empty for none.
    """

    runtime: Any
    s3: Any
    task: Task
    robustness: Robustness
    owner: str
    bucket: str
    holdout_key: str
    gate: Gate
    base_model: str
    slice_queries: int
    judge: str = ""
    resamples: int = RESAMPLES

    @classmethod
    def of(cls, env: EvaluationEnv, s3: Any) -> Evaluation:
        """Create the function's evaluation. Its client retries throttled calls, which must not affect scores.

        The timeouts are short enough for one part of the questions to finish even if all calls hang.
        """
        config = Config(retries={"mode": "adaptive", "max_attempts": 5}, connect_timeout=5, read_timeout=15)
        task = Task.load()
        return cls(
            runtime=boto3.client("bedrock-runtime", config=config),
            s3=s3,
            task=task,
            robustness=Robustness.load(task),
            owner=env.owner,
            bucket=env.bucket,
            holdout_key=env.holdout_key,
            gate=Gate(**env.gate),
            base_model=env.base_model,
            slice_queries=env.slice_queries,
            judge=env.judge,
        )

    def folder(self, release: Release) -> Folder:
        """Return the folder of a release's present attempt."""
        return attempt_folder(self.s3, self.bucket, self.owner, release)


def attempt_folder(s3: Any, bucket: str, owner: str, release: Release) -> Folder:
    """Return the folder of a release's present attempt in a bucket."""
    return Folder(s3, bucket, f"{releases_folder(owner)}{release.digest}-{release.attempt}/")


def questions_of(folder: Folder, plan: Plan) -> list[Question]:
    """Return all questions, in order."""
    return [Question(**row) for shard in plan["shards"] for row in folder.rows(f"{QUESTIONS}{shard}.jsonl")]


def answers_folder(plan: Plan, shard: str) -> str:
    """Return the folder of a shard's answers."""
    return f"{ANSWERS}{plan['life']}/{shard}/"


def answers_of(folder: Folder, plan: Plan) -> dict[str, dict[str, Answer]]:
    """Return the kept answers by contender and question."""
    given: dict[str, dict[str, Answer]] = defaultdict(dict)
    for shard in plan["shards"]:
        for part in folder.names(answers_folder(plan, shard)):
            for kept in folder.rows(part):
                name, one = read(kept)
                given[name][one.id] = one
    return given


def row(contender: str, answer: Answer) -> dict[str, Any]:
    """Return an answer in its stored form, which is short because there are hundreds of thousands."""
    return {
        "by": contender,
        "id": answer.id,
        "weights": answer.weights,
        "problem": answer.problem[:300],
        "ms": round(answer.latency_ms, 2),
        "tokens": [answer.input_tokens, answer.output_tokens],
    }


def read(kept: Mapping[str, Any]) -> tuple[str, Answer]:
    """Return the contender's name and the answer of a stored row."""
    tokens = kept["tokens"]
    return str(kept["by"]), Answer(
        str(kept["id"]),
        kept["weights"],
        str(kept["problem"]),
        float(kept["ms"]),
        int(tokens[0]),
        int(tokens[1]),
    )
