"""A set of raw queries, and the stand-in that labels it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distilled_router.aws.objects import Folder, Seal
from distilled_router.aws.state_machine import StageResult
from distilled_router.bedrock.ownership import Claimant
from distilled_router.data.labelling_plan import Plan
from distilled_router.task.task import Task
from labelling import life
from labelling.shards import Shard
from local.bedrock import BedrockStandIn
from tests.unit import framework

TASK = Task.load()
OWNER = "router-test"
BUCKET = "data"
ROLE = "arn:aws:iam::000000000000:role/batch"
CREATE = "CreateModelInvocationJob"
HOUR = 3600
SEAL = Seal("the key of the table")
CLAIMANT = Claimant(framework.STACK, "LabellingResource5F6E7A8B")
FIRST, SECOND = (f"arn:aws:states:us-east-1:000000000000:execution:m:a-{number}" for number in (1, 2))

PLAN = Plan(
    owner=OWNER,
    digest="0123456789ab",
    labels="0" * 16,
    dataset="1" * 16,
    method="distillation",
    teacher="us.amazon.nova-pro-v1:0",
    samples=2,
    temperature=0.5,
    max_tokens=200,
    tolerance=0.1,
    minimum_agreement=0.6,
    maximum_label_share=1.0,
    holdout_share=0.1,
    validation_share=0.0,
    concurrency=4,
    batch_hours=24,
    poll_seconds=60,
)


@dataclass
class Scene:
    """One shard in an account whose clock the test controls."""

    server: BedrockStandIn
    bedrock: Any
    runtime: Any
    plan: Plan = PLAN
    bucket: str = BUCKET
    wanted: list[bool] = field(default_factory=lambda: [True])
    seal: Seal = SEAL

    @property
    def folder(self) -> Folder:
        return Folder(self.server.s3, self.bucket, self.plan.folder, self.seal)

    def publish(self, count: int, shard: str = "00000") -> list[str]:
        """Write raw queries as the resource publishes them."""
        queries = [f"a red car number {number} driving at night" for number in range(count)]
        rows = [{"number": number, "query": query} for number, query in enumerate(queries)]
        self.folder.write_rows(f"queries/{shard}.jsonl", rows)
        life.begin(self.folder)
        return queries

    def shard(self, name: str = "00000", execution: str = FIRST, **changes: Any) -> Shard:
        """Return the shard as one invocation of the function sees it."""
        known: Mapping[str, Any] = {
            "plan": self.plan,
            "bedrock": self.bedrock,
            "runtime": self.runtime,
            "is_wanted": lambda: self.wanted[0],
            **changes,
        }
        return Shard(
            name=name,
            task=TASK,
            folder=self.folder,
            owner=self.plan.owner,
            execution=execution,
            role=ROLE,
            tags=CLAIMANT.tags(self.plan.owner, request=execution, digest=self.plan.digest),
            **known,
        )

    def label(self, execution: str = FIRST, most: int = 50, **changes: Any) -> StageResult:
        """Run the function until the shard has ended, as the state machine does."""
        for hours in range(most):
            result = self.shard(execution=execution, **{"waited": hours * HOUR, **changes}).label()
            if result["outcome"] != "waiting":
                return result
            self.server.advance(HOUR)
        raise AssertionError(f"still waiting: {result['message']}")

    def labelled(self, shard: str = "00000") -> list[dict[str, Any]]:
        """Return the shard's labelled rows."""
        return list(self.folder.rows(f"labelled/{shard}.jsonl"))

    def jobs(self) -> list[dict[str, Any]]:
        """Return all batch jobs, oldest first."""
        found = self.bedrock.list_model_invocation_jobs(sortOrder="Ascending")
        return list(found["invocationJobSummaries"])

    def asked(self) -> int:
        """Return the number of single teacher calls."""
        return len(self.server.calls("Converse"))

    def records(self, number: int = 1, shard: str = "00000") -> list[str]:
        """Return the record ids in the input file of a round."""
        return [row["recordId"] for row in self.folder.rows(f"rounds/{shard}/{number:03d}/input.jsonl")]

    def with_plan(self, **changes: Any) -> Scene:
        """Return the same scene under another plan."""
        return replace(self, plan=replace(self.plan, **changes))


def replaced(scene: Scene, key: str, *changes: tuple[str, str]) -> None:
    """Replace an object of the folder, as somebody with access to the bucket would: with its metadata."""
    place = {"Bucket": scene.bucket, "Key": f"{scene.plan.folder}{key}"}
    found = scene.server.s3.get_object(**place)
    body = found["Body"].read().decode()
    for old, new in changes:
        assert old in body
        body = body.replace(old, new)
    scene.server.s3.put_object(**place, Body=body.encode(), Metadata=found["Metadata"])


def spoilt(rows: list[dict[str, Any]]) -> list[str]:
    """Return the reasons of all answers without weights."""
    return [answer["reason"] for row in rows for answer in row["answers"] if "reason" in answer]


def failing(real: Any, **replaced: Callable[..., Any]) -> Any:
    """Return a client with some of its methods replaced."""

    class Client:
        def __getattr__(self, name: str) -> Any:
            return replaced.get(name) or getattr(real, name)

    return Client()


def printed(value: object) -> str:
    """Return a value as JSON, for searching a text in it."""
    return json.dumps(value)
