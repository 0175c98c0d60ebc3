"""State of one evaluation attempt, in the folder `releases/<digest>-<attempt>/`.

Stored answers are not requested again, so that an interrupted attempt continues where it stopped. A call that
failed is no answer; `failures/` holds those of each shard's last round, for the report.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import boto3
from botocore.config import Config

from distilled_router.aws.objects import Folder, Seal
from distilled_router.env import EvaluationEnv
from distilled_router.release.gate import Gate
from distilled_router.release.route import releases_folder
from distilled_router.release.table import Release
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.metrics import Answer, Question

PLAN = "plan.json"
QUESTIONS, ANSWERS, FAILURES = "questions/", "answers/", "failures/"

type Plan = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Clients and settings of an evaluation.

    Attributes:
        base_model: answers for comparison; empty for none.
        slice_queries: see `questions`.
        judge: grades the candidate's answers; empty for none.
        environment, student, teacher: for the report; empty if unknown.
        outage_seconds: how long AskModels waits for a model that can't be called.
        now: returns epoch seconds.
    """

    runtime: Any
    s3: Any
    task: Task
    robustness: Robustness
    owner: str
    bucket: str
    holdout_key: str
    training_key: str = ""
    gate: Gate
    base_model: str
    slice_queries: int
    judge: str = ""
    environment: str = ""
    student: str = ""
    teacher: str = ""
    outage_seconds: float
    now: Callable[[], float]

    def key_of(self, release: Release) -> str:
        """Return the key of the hold-out set on which a release's present attempt evaluates."""
        return release.holdout_key or self.holdout_key

    def folder(self, release: Release) -> Folder:
        """Return the folder of a release's present attempt."""
        return attempt_folder(self.s3, self.bucket, self.owner, release)


def evaluation_of(env: EvaluationEnv, s3: Any, now: Callable[[], float] = time.time) -> Evaluation:
    """Return the function's clients and settings.

    The client retries twice; AskModels asks again later. botocore's adaptive mode would delay first calls
    too, and measure its own pauses as the model's latency. The timeouts are short enough for 20 questions to
    end even if all calls hang.
    """
    config = Config(retries={"mode": "standard", "max_attempts": 3}, connect_timeout=5, read_timeout=15)
    task = Task.load()
    return Evaluation(
        runtime=boto3.client("bedrock-runtime", config=config),
        s3=s3,
        task=task,
        robustness=Robustness.load(task),
        owner=env.owner,
        bucket=env.bucket,
        holdout_key=env.holdout_key,
        training_key=env.training_key,
        gate=Gate(**env.gate),
        base_model=env.base_model,
        slice_queries=env.slice_queries,
        judge=env.judge,
        environment=env.environment,
        student=env.student,
        teacher=env.teacher,
        outage_seconds=env.outage_minutes * 60,
        now=now,
    )


def attempt_folder(s3: Any, bucket: str, owner: str, release: Release) -> Folder:
    """Return the folder of a release's present attempt in a bucket. Its files are sealed."""
    seal = Seal(release.seal) if release.seal else None
    return Folder(s3, bucket, f"{releases_folder(owner)}{release.digest}-{release.attempt}/", seal)


def questions_of(folder: Folder, plan: Plan) -> list[Question]:
    """Return all questions, in order."""
    return [Question(**row) for shard in plan["shards"] for row in folder.rows(f"{QUESTIONS}{shard}.jsonl")]


def answers_folder(plan: Plan, shard: str) -> str:
    """Return the folder of a shard's answers."""
    return f"{ANSWERS}{plan['life']}/{shard}/"


def answers_of(folder: Folder, plan: Plan) -> dict[str, dict[str, Answer]]:
    """Return what is known by contender and question: the kept answer, or why the last call failed."""
    given: dict[str, dict[str, Answer]] = defaultdict(dict)
    for shard in plan["shards"]:
        for name, one in kept_answers(folder, plan, shard):
            given[name][one.id] = one
        for name, one in Failures.read(folder, plan, shard).answers:
            given[name].setdefault(one.id, one)
    return given


def kept_answers(folder: Folder, plan: Plan, shard: str) -> Iterator[tuple[str, Answer]]:
    """Yield the contender's name and the answer for each kept answer of a shard."""
    for part in folder.names(answers_folder(plan, shard)):
        yield from (read(kept) for kept in folder.rows(part))


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The calls of a shard that failed in its last round.

    Attributes:
        answers: contender's name and answer, which says why the call failed.
        since: epoch second by contender in whose round its calls began to fail.
        answered: epoch second by contender of the last round in which it answered and calls failed.
    """

    answers: Sequence[tuple[str, Answer]] = ()
    since: Mapping[str, float] = field(default_factory=dict)
    answered: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Folder, plan: Plan, shard: str) -> Self:
        """Return a shard's failures; none if it has none, or was not asked yet."""
        kept = folder.read(_failures(plan, shard)) or {"rows": [], "since": {}}
        given = [read(one) for one in kept["rows"]]
        return cls(answers=given, since=kept["since"], answered=kept.get("answered", {}))

    def write(self, folder: Folder, plan: Plan, shard: str) -> None:
        """Replace a shard's failures."""
        rows = [row(name, answer) for name, answer in self.answers]
        kept = {"rows": rows, "since": dict(self.since), "answered": dict(self.answered)}
        folder.write(_failures(plan, shard), kept)


@dataclass(frozen=True)
class Outages:
    """When the calls of contenders failed, by contender: in epoch seconds, in any shard of a plan.

    Attributes:
        first: calls began to fail.
        begun: nothing has been answered since.
    """

    first: Mapping[str, float]
    begun: Mapping[str, float]

    @classmethod
    def read(cls, folder: Folder, plan: Plan) -> Self:
        """Return what the shards have kept."""
        first: dict[str, float] = {}
        answered: dict[str, float] = {}
        for key in folder.names(f"{FAILURES}{plan['life']}/"):
            kept = folder.read(key) or {}
            for name, at in kept.get("since", {}).items():
                first[name] = min(at, first.get(name, at))
            for name, at in kept.get("answered", {}).items():
                answered[name] = max(at, answered.get(name, at))
        return cls(first, {name: max(at, answered.get(name, at)) for name, at in first.items()})


def _failures(plan: Plan, shard: str) -> str:
    return f"{FAILURES}{plan['life']}/{shard}.json"


def row(contender: str, answer: Answer) -> dict[str, Any]:
    """Return an answer in its stored form, which is short because there are hundreds of thousands."""
    return {
        "by": contender,
        "id": answer.id,
        "weights": answer.weights,
        "problem": answer.problem[:300],
        "ms": round(answer.latency_ms, 2),
        "tokens": [answer.input_tokens, answer.output_tokens],
        **({"unavailable": answer.unavailable} if answer.unavailable else {}),
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
        str(kept.get("unavailable", "")),
    )
