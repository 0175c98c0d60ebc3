"""An execution of the labelling asks the limit before the teacher is asked, whoever started it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from distilled_router.aws.state_machine import StageResult
from distilled_router.cost.estimate import Spec, Volume, estimate
from distilled_router.cost.limit import Limit, Spending, job_usd, labels_usd
from distilled_router.cost.prices import Prices
from labelling.cost_check import CostCheck
from tests.unit.labelling.scenes import FIRST, OWNER, PLAN, SECOND, TASK, Scene
from tests.unit.requests_table import RequestsTable

JOB = f"{OWNER}-{PLAN.digest}"
# Fine-tuning costs cents, so the labels are most of the estimate.
SPEC = Spec(
    method="fine_tuning",
    teacher=PLAN.teacher,
    student="amazon.nova-micro-v1:0:128k",
    base_model="us.amazon.nova-micro-v1:0",
    samples=PLAN.samples,
    max_tokens=PLAN.max_tokens,
    job=JOB,
)
QUERIES = 120


@pytest.fixture
def table() -> RequestsTable:
    return RequestsTable()


def step(scene: Scene, table: RequestsTable, usd: float, execution: str = FIRST) -> StageResult:
    """Run the step in an execution of the scene's plan."""
    spending = Spending(table, scene.bedrock, OWNER, scene.server.clock.now)
    return CostCheck(scene.plan, SPEC, Limit(usd, 30), scene.folder, TASK, execution, spending).commit()


def committed(table: RequestsTable) -> dict[str, float]:
    """Return the ledger: US dollars by name."""
    entries: dict[str, Any] = json.loads(table.committed[f"{OWNER}/spending"])
    return {name: entry["usd"] for name, entry in entries.items()}


def labels(table: RequestsTable) -> float:
    return sum(usd for name, usd in committed(table).items() if PLAN.labels in name)


@pytest.fixture
def most(scene: Scene) -> float:
    """Publish queries, and return the most that a whole labelling of them costs."""
    found = estimate(SPEC, Volume.of(scene.publish(QUERIES)), TASK, Prices.load())
    assert labels_usd(found) > 5 * job_usd(found) > 0
    return labels_usd(found)


def test_execution_commits_labels_and_job(scene: Scene, table: RequestsTable, most: float) -> None:
    assert step(scene, table, 10)["outcome"] == "done"
    assert committed(table).keys() == {JOB, next(name for name in committed(table) if PLAN.labels in name)}
    assert labels(table) == pytest.approx(most, abs=0.01)


def test_execution_above_the_limit_fails_before_the_teacher_is_asked(
    scene: Scene, table: RequestsTable, most: float
) -> None:
    result = step(scene, table, most / 2)
    assert result["outcome"] == "failed"
    assert "distillation.maximum_cost_usd" in result["message"]
    assert not table.committed


def test_shard_that_is_gone_makes_nothing_cheaper(scene: Scene, table: RequestsTable, most: float) -> None:
    result = step(scene.with_plan(shards=2), table, 10)
    assert result["outcome"] == "failed"
    assert "missing ['00001']" in result["message"]
    assert not table.committed


def test_start_that_is_repeated_counts_once(scene: Scene, table: RequestsTable, most: float) -> None:
    for _ in range(10):
        assert step(scene, table, 1.5 * most)["outcome"] == "done"
    assert labels(table) == pytest.approx(most, abs=0.01)


def test_execution_that_asks_again_counts_again(scene: Scene, table: RequestsTable, most: float) -> None:
    """A shard's round is paid, and then its execution is stopped. Or it goes on beside the other one."""
    step(scene, table, 10)
    scene.shard().label()
    assert scene.jobs()
    scene.server.advance(60)
    assert step(scene, table, 10, SECOND)["outcome"] == "done"
    assert labels(table) == pytest.approx(2 * most, abs=0.01)


def test_two_executions_at_once_count_both(scene: Scene, table: RequestsTable, most: float) -> None:
    """Neither has begun a round when the other one asks, and each may begin two."""
    assert step(scene, table, 1.5 * most, FIRST)["outcome"] == "done"
    assert step(scene, table, 1.5 * most, SECOND)["outcome"] == "failed"
    assert step(scene, table, 10, SECOND)["outcome"] == "done"
    assert labels(table) == pytest.approx(2 * most, abs=0.01)


def test_labelling_is_not_started_again_for_ever(scene: Scene, table: RequestsTable, most: float) -> None:
    """Batch jobs fail without answers, and somebody starts the labelling again and again."""
    outcomes = list[str]()
    for number in range(6):
        outcomes.append(step(scene, table, 3 * most, f"{FIRST}{number}")["outcome"])
        scene.folder.write(
            f"rounds/00000/{number:03d}/round.json", {"number": number, "execution": FIRST, "job": "arn"}
        )
    assert outcomes == ["done"] * 2 + ["failed"] * 4


def test_labelled_shards_ask_nothing_more(scene: Scene, table: RequestsTable, most: float) -> None:
    step(scene, table, 10)
    scene.label()
    assert step(scene, table, 10, SECOND)["outcome"] == "done"
    assert labels(table) == pytest.approx(most, abs=0.01)
    # Under a lower limit, too: nothing is paid.
    assert step(scene, table, most / 2, SECOND)["outcome"] == "done"


def test_plan_of_a_person_is_estimated_as_it_is(scene: Scene, table: RequestsTable, most: float) -> None:
    dear = scene.with_plan(samples=PLAN.samples * 5)
    result = step(dear, table, 2 * most)
    assert result["outcome"] == "failed"
    assert f"{5 * QUERIES * PLAN.samples:,} records" in result["message"]


def test_other_jobs_of_the_owner_count(scene: Scene, table: RequestsTable, most: float) -> None:
    spending = Spending(table, scene.bedrock, OWNER, scene.server.clock.now)
    other = f"{OWNER}-ba9876543210"
    spending.commit({other: most}, Limit(10, 30), unknown_usd=0)
    result = step(scene, table, 1.9 * most)
    assert result["outcome"] == "failed"
    assert other in result["message"]
    assert replace(spending, table=RequestsTable()).covers(other, 1, Limit(10, 30)) is False


def test_busy_ledger_is_tried_again(scene: Scene, table: RequestsTable, most: float) -> None:
    class Busy(RequestsTable):
        def update_item(self, **request: Any) -> dict[str, Any]:
            del request
            self._require(False)
            return {}

    assert step(scene, Busy(), most * 2)["outcome"] == "waiting"
