"""Models that are throttled below one call a second: they answer in the end, and the evaluation waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult
from distilled_router.release.table import Release
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.ask_models import RETRY_SECONDS, SHORT_SECONDS, ask_shard
from evaluation.attempt import PLAN, QUESTIONS, Evaluation, answers_of
from evaluation.contenders import BASE, CANDIDATE, LIVE, Contender
from evaluation.metrics import Question
from local.bedrock.memory_s3 import MemoryS3
from tests.unit.evaluation.court import LAX
from tests.unit.quota import Quota

TASK = Task.load()
RELEASE = Release("0123456789ab", attempt=1)
OUTAGE = 1_200
# Events of an execution's history, of which one round of a step adds about eleven (Step Functions quotas).
EVENTS, ROUND_EVENTS = 25_000, 11


class Table:
    """Stands in for the releases table: the release is being evaluated."""

    def get(self, _: str) -> Release:
        """Return the release."""
        return RELEASE

    def evaluating(self, *_: str) -> bool:
        """Keep the release in its state."""
        return True


class Teacher:
    """Stands in for models that answer at once."""

    def __init__(self) -> None:
        self.calls = 0

    def converse(self, **_: Any) -> Any:
        """Return an answer."""
        self.calls += 1
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": "10 80 0 10"}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 40, "outputTokens": 11},
        }


class Bench:
    """Shards of questions to one or more contenders, and a clock that goes on while a step waits."""

    def __init__(
        self, contenders: tuple[str, ...] = (CANDIDATE,), shards: Mapping[str, int] | None = None
    ) -> None:
        self.models, self.now, self.rounds = Teacher(), 0.0, 0
        self.runtime: Any = self.models
        self.tick: Callable[[float], None] = lambda _: None
        self._s3 = MemoryS3()
        self._shards = shards or {"00000": 50}
        asked = [asdict(Contender(name=name, title=name, endpoint=name)) for name in contenders]
        plan = {"life": "1", "contenders": asked, "shards": list(self._shards), "questions": 0}
        self.folder.write(PLAN, plan)
        for shard, count in self._shards.items():
            rows = [
                Question(f"{shard}-{number}", "holdout", f"query {number}", None) for number in range(count)
            ]
            self.folder.write_rows(f"{QUESTIONS}{shard}.jsonl", map(asdict, rows))

    @property
    def folder(self) -> Folder:
        """Return the attempt's folder."""
        return self.evaluation().folder(RELEASE)

    def evaluation(self) -> Evaluation:
        """Return the step's clients and settings."""
        return Evaluation(
            runtime=self.runtime,
            s3=self._s3,
            task=TASK,
            robustness=Robustness(),
            owner="search",
            bucket="data",
            holdout_key="holdout.jsonl",
            gate=LAX,
            base_model="",
            slice_queries=0,
            outage_seconds=OUTAGE,
            now=lambda: self.now,
        )

    def throttled(self, rate: float, burst: int) -> Quota:
        """Give the models a quota."""
        quota = Quota(self.models, rate=rate, burst=burst)
        self.runtime, self.tick = quota, quota.wait
        return quota

    def step(self, shard: str = "00000") -> StageResult:
        """Run the step once."""
        self.rounds += 1
        releases: Any = Table()
        return ask_shard(RELEASE.digest, f"{shard}.jsonl", releases, self.evaluation())

    def wait(self, seconds: float) -> None:
        """Let time go on."""
        self.now += seconds
        self.tick(seconds)

    def ask(self, shard: str = "00000") -> StageResult:
        """Run the step until it no longer waits."""
        while (result := self.step(shard))["outcome"] == "waiting":
            self.wait(result["seconds"])
        return result

    def unasked(self, name: str = CANDIDATE) -> int:
        """Return how many questions a contender could not be asked."""
        given = answers_of(self.folder, self.folder.read(PLAN) or {})[name]
        return sum(self._shards.values()) - sum(answer.was_asked for answer in given.values())


def throttle(request: Mapping[str, Any]) -> None:
    raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Too many."}}, "Converse")


@pytest.mark.parametrize(("rate", "burst"), [(0.5, 5), (0.1, 5), (0.02, 1)])
def test_candidate_below_one_call_a_second_loses_no_answer(rate: float, burst: int) -> None:
    """At the last rate, 50 answers take longer than the wait for an outage."""
    bench = Bench()
    quota = bench.throttled(rate, burst)
    assert bench.ask()["outcome"] == "done"
    assert quota.throttled > 0
    assert bench.unasked() == 0
    assert bench.models.calls == 50
    assert 49 / rate - burst / rate - RETRY_SECONDS <= bench.now < 2 * 50 / rate + 300


def test_models_that_share_a_quota_lose_no_answer() -> None:
    bench = Bench((CANDIDATE, LIVE, BASE))
    bench.throttled(0.3, 10)
    assert bench.ask()["outcome"] == "done"
    assert {name: bench.unasked(name) for name in (CANDIDATE, LIVE, BASE)} == {CANDIDATE: 0, LIVE: 0, BASE: 0}


def test_last_question_of_a_throttled_model_gets_its_turn() -> None:
    """One in fifty is less than the 5 % that an evaluation may lack."""
    bench = Bench()

    class Busy(Teacher):
        def converse(self, **request: Any) -> Any:
            if bench.now < 1_000 and request["messages"][0]["content"][0]["text"] == "query 49":
                throttle(request)
            return super().converse(**request)

    bench.runtime = Busy()
    assert bench.ask()["outcome"] == "done"
    assert bench.unasked() == 0
    assert 1_000 <= bench.now < 1_100


def test_question_that_always_fails_otherwise_is_not_worth_a_long_wait() -> None:
    bench = Bench()

    class Down(Teacher):
        def converse(self, **request: Any) -> Any:
            if request["messages"][0]["content"][0]["text"] == "query 49":
                raise ClientError({"Error": {"Code": "ModelErrorException", "Message": "Sorry."}}, "Converse")
            return super().converse(**request)

    bench.runtime = Down()
    assert bench.ask()["outcome"] == "done"
    assert bench.unasked() == 1
    assert SHORT_SECONDS <= bench.now < SHORT_SECONDS + 60


def test_outage_is_counted_from_the_last_answer() -> None:
    bench = Bench()
    quota = bench.throttled(0.02, 1)
    bench.tick = lambda seconds: quota.wait(seconds) if bench.now < 2_000 else None
    assert bench.ask()["outcome"] == "done"
    assert 5 < bench.unasked() < 45
    assert 1_900 + OUTAGE <= bench.now < 2_000 + OUTAGE + 200


def test_outage_ends_for_all_shards_with_an_answer_in_one() -> None:
    bench = Bench(shards={"00000": 50, "00001": 50})
    bench.throttled(0.0, 0)
    assert bench.step("00001")["outcome"] == "waiting"
    bench.wait(OUTAGE - 100)
    bench.throttled(0.0, 10)
    assert bench.step("00000")["outcome"] == "waiting"
    bench.wait(200)
    assert bench.step("00001")["outcome"] == "waiting"
    bench.wait(OUTAGE - 200)
    assert bench.step("00001")["outcome"] == "done"


def test_rounds_of_a_slow_model_fit_into_the_executions_history() -> None:
    """A shard has 500 questions for three models; pauses grow, so that more questions take fewer rounds."""
    bench = Bench(shards={"00000": 200})
    bench.throttled(1 / 60, 10)
    assert bench.ask()["outcome"] == "done"
    assert bench.unasked() == 0
    assert bench.rounds * 500 * 3 / 200 * ROUND_EVENTS < EVENTS
