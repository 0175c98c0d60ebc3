"""An evaluation with real students, which the stand-in trains from the sample data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from distilled_router.aws.state_machine import StageResult
from distilled_router.release.gate import Gate
from distilled_router.release.route import Share
from distilled_router.release.table import LIVE
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.ask_models import ask_shard
from evaluation.attempt import Evaluation
from evaluation.prepare_evaluation import prepare
from evaluation.score_and_gate import score
from tests.unit.release_world import OWNER, A, B, World

DATA = Path(__file__).parents[3] / "data"
ASKED = 40
GATE = Gate(
    minimum_valid_output=0.98,
    minimum_dominant_accuracy=0.8,
    maximum_mean_absolute_error=0.15,
    minimum_examples=ASKED,
    # So few rows can't show less.
    non_inferiority_margin=0.2,
)
LAX = replace(GATE, minimum_dominant_accuracy=0.1, maximum_mean_absolute_error=0.5)
ROWS = (DATA / "training.jsonl").read_text().splitlines()


def strict(text: str | bytes) -> Any:
    """Parse JSON strictly, as readers other than Python's do."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def worse(rows: Sequence[str]) -> list[str]:
    """Return rows of which every other one has the answer of the next: worse, and better than no student."""
    found = [json.loads(row) for row in rows]
    for row, following in list(pairwise(found))[::2]:
        row["messages"][1] = following["messages"][1]
    return list(map(json.dumps, found))


class Court:
    """A candidate A with its endpoint, and the hold-out set in S3."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runtime = world.server.client("bedrock-runtime", attempts=1)
        self.task = Task.load(DATA.parent / "task")
        self.waits: list[StageResult] = []
        self.hold_out((DATA / "holdout.jsonl").read_text().splitlines()[:ASKED])

    def hold_out(self, rows: Sequence[str]) -> None:
        body = "\n".join(rows).encode()
        self.world.s3.put_object(Bucket=self.world.bucket, Key="datasets/d/holdout.jsonl", Body=body)

    @property
    def now(self) -> float:
        """Return the time, which goes on while the state machine waits."""
        return sum(waited["seconds"] for waited in self.waits)

    def candidate(self, rows: Sequence[str] = ROWS[:200]) -> None:
        """Train the candidate: a few rows teach it the form of answers, all rows the task."""
        model = self.world.train(A, "\n".join(rows).encode())
        self.world.begin(A, model_arn=model, endpoint=self.world.deploy(A, model))

    def go_live(self, rows: Sequence[str] = ROWS) -> None:
        """Make release B live, with all requests."""
        model = self.world.train(B, "\n".join(rows).encode())
        endpoint = self.world.deploy(B, model)
        self.world.begin(B, model_arn=model, endpoint=endpoint)
        releases = self.world.releases
        releases.move_with_route(B, LIVE, "serves", (Share(B, endpoint, 1.0),), after=releases.route())

    def evaluation(self, **changes: Any) -> Evaluation:
        given: dict[str, Any] = {
            "runtime": self.runtime,
            "s3": self.world.s3,
            "task": self.task,
            "robustness": Robustness(),
            "owner": OWNER,
            "bucket": self.world.bucket,
            "holdout_key": "datasets/d/holdout.jsonl",
            "gate": LAX,
            "base_model": "",
            "slice_queries": 0,
            "outage_seconds": 3_600,
            "now": lambda: self.now,
        }
        return Evaluation(**{**given, **changes})

    def evaluate(self, digest: str = A, **changes: Any) -> StageResult:
        """Run all stages of an evaluation, as the state machine does."""
        releases, evaluation = self.world.releases, self.evaluation(**changes)
        laid_out = prepare(digest, releases, evaluation)
        if laid_out["outcome"] != "done":
            return laid_out
        for key in self.keys("questions/", digest):
            answered = self.answer(key.rsplit("/", 1)[-1], evaluation, digest)
            if answered["outcome"] != "done":
                return answered
        return score(digest, releases, evaluation)

    def answer(self, shard: str, evaluation: Evaluation, digest: str = A) -> StageResult:
        """Run the stage on a shard until it returns another outcome than `waiting`."""
        while True:
            answered = ask_shard(digest, shard, self.world.releases, evaluation)
            if answered["outcome"] != "waiting":
                return answered
            self.waits.append(answered)

    def keys(self, under: str, digest: str = A) -> list[str]:
        prefix = f"releases/{OWNER}/{digest}-{self.world.release(digest).attempt}/{under}"
        found = self.world.s3.list_objects_v2(Bucket=self.world.bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", ())]

    def rows(self, under: str) -> list[dict[str, Any]]:
        bodies = (self.world.s3.get_object(Bucket=self.world.bucket, Key=key) for key in self.keys(under))
        return [json.loads(line) for body in bodies for line in body["Body"].read().splitlines()]

    def report(self) -> dict[str, Any]:
        (key,) = self.keys("report.json")
        found: dict[str, Any] = strict(
            self.world.s3.get_object(Bucket=self.world.bucket, Key=key)["Body"].read()
        )
        return found

    def metrics(self, name: str = "candidate") -> dict[str, Any]:
        found: dict[str, Any] = self.report()["contenders"][name]["metrics"]
        return found
