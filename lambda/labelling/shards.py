"""One shard of queries, labelled in rounds: what the teacher did not answer well is asked once more.

All that is known lies in the bucket, so that whoever comes next, after a crash or in another execution, goes
on where this one ended: a round that was begun is waited for, and an answer that was paid for is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.errors import NotYetError, ResourceError, or_none
from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, failed, waiting
from distilled_router.cost.batch_limits import BATCH_MINIMUM
from distilled_router.data.labelling_plan import Plan
from distilled_router.task.task import Task
from labelling import batch, calls
from labelling.answers import Answer
from labelling.records import Query, Record, records

logger = Logger(child=True)

# A record is asked again once; what is badly answered twice is listed with the rejects.
MOST_TRIES = 2
# Rounds of one execution: a first one, and one for what it left.
MOST_ROUNDS = 2
# If more of a shard's records got no answer at all, something is wrong that another label can't make good.
MOST_UNANSWERED = 0.1
# Answers of single calls are kept in parts of so many: what a crash in between loses.
PART = 25
# How long one invocation makes calls, well below the function's 15 minutes.
CALL_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of asking: a batch job, or single calls for these records' ids."""

    number: int
    execution: str
    job: str = ""
    records: Sequence[str] = ()


@dataclass
class Shard:
    """One shard and what it works with. `is_wanted` says whether the execution still runs."""

    name: str
    plan: Plan
    task: Task
    folder: Folder
    bedrock: Any
    runtime: Any
    owner: str
    life: str
    execution: str
    role: str
    tags: Mapping[str, str]
    network: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_wanted: Callable[[], bool] = lambda: True
    now: Callable[[], float] = time.monotonic
    _answers: dict[str, list[Answer]] = field(default_factory=dict, init=False)

    def label(self) -> StageResult:
        """Go one step on; `done` once every query of the shard has its answers, good or bad."""
        if self._labelled in self.folder.names("labelled/"):
            return done(f"shard {self.name} is labelled")
        try:
            return self._step()
        except NotYetError as error:
            return waiting(f"shard {self.name}: {error}", self.plan.poll_seconds)
        except ResourceError as error:
            return failed(f"shard {self.name}: {error}")

    def _step(self) -> StageResult:
        rounds = self._rounds()
        for known in rounds:
            outcome = self._collect(known)
            if outcome is not None:
                return outcome
        missing = [record for record in self._records if self._may_ask(record)]
        mine = [known for known in rounds if known.execution == self.execution]
        if missing and len(mine) < MOST_ROUNDS:
            return self._begin(missing, rounds[-1].number + 1 if rounds else 1)
        unanswered = [record for record in self._records if not self._was_asked(record)]
        if len(unanswered) > MOST_UNANSWERED * len(self._records):
            reasons = [self._answers[r.id][-1].reason for r in unanswered if self._answers.get(r.id)]
            return failed(
                f"shard {self.name}: {len(unanswered)} of {len(self._records)} records got no answer"
                f"{f', for instance: {reasons[0]}' if reasons else ''}. What was answered is kept; start the "
                "labelling again once the cause is gone."
            )
        self.folder.write_rows(self._labelled, self._rows())
        return done(f"shard {self.name} is labelled: {len(self._records)} records in {len(rounds)} rounds")

    # What is known

    @property
    def _labelled(self) -> str:
        return f"labelled/{self.name}.jsonl"

    def _place(self, number: int) -> str:
        return f"rounds/{self.name}/{number:03d}"

    @cached_property
    def _queries(self) -> list[Query]:
        rows = self.folder.rows(f"queries/{self.name}.jsonl")
        return [Query(int(row["number"]), str(row["query"])) for row in rows]

    @cached_property
    def _records(self) -> list[Record]:
        return list(records(self._queries, self.plan.samples))

    def _rounds(self) -> list[Round]:
        keys = [key for key in self.folder.names(f"rounds/{self.name}/") if key.endswith("/round.json")]
        return [Round(**(self.folder.read(key) or {})) for key in keys]

    def _may_ask(self, record: Record) -> bool:
        given = self._answers.get(record.id, ())
        return not any(answer.weights for answer in given) and sum(a.asked for a in given) < MOST_TRIES

    def _was_asked(self, record: Record) -> bool:
        return any(answer.asked for answer in self._answers.get(record.id, ()))

    def _rows(self) -> Iterator[dict[str, Any]]:
        by_query: dict[int, list[Record]] = {}
        for record in self._records:
            by_query.setdefault(record.number, []).append(record)
        for query in self._queries:
            given = [self._answers.get(record.id, []) for record in by_query[query.number]]
            every = [answer for answers in given for answer in answers]
            yield {
                "number": query.number,
                "query": query.text,
                "answers": [_best(answers) for answers in given],
                "input_tokens": sum(answer.input_tokens for answer in every),
                "output_tokens": sum(answer.output_tokens for answer in every),
            }

    # Rounds

    def _begin(self, missing: Sequence[Record], number: int) -> StageResult:
        """Begin to ask these records; the teacher is paid from here on."""
        if not self.is_wanted():
            return failed(f"shard {self.name}: the labelling was stopped")
        logger.info("round begins", shard=self.name, round=number, records=len(missing))
        if len(missing) >= BATCH_MINIMUM:
            return self._begin_batch(missing, number)
        known = Round(number=number, execution=self.execution, records=[record.id for record in missing])
        self.folder.write(f"{self._place(number)}/round.json", asdict(known))
        return self._collect(known) or waiting(f"shard {self.name}: round {number} is over", 1)

    def _begin_batch(self, missing: Sequence[Record], number: int) -> StageResult:
        place = self._place(number)
        batch.write_input(self.folder, f"{place}/input.jsonl", missing, self.plan, self.task)
        name = batch.job_name(self.owner, self.life, self.name, number)
        arn = batch.start(
            self.bedrock,
            name,
            self.plan,
            self.folder,
            source=f"{place}/input.jsonl",
            target=f"{place}/output/",
            role=self.role,
            network=self.network,
            tags=self.tags,
        )
        if not self.is_wanted():
            # Stopped while it was made: whoever stopped the execution may have looked before.
            batch.stop(self.bedrock, arn)
            return failed(f"shard {self.name}: the labelling was stopped")
        known = Round(number=number, execution=self.execution, job=arn)
        self.folder.write(f"{place}/round.json", asdict(known))
        return waiting(
            f"shard {self.name}: batch job {name} has {len(missing)} records", self.plan.poll_seconds
        )

    def _collect(self, known: Round) -> StageResult | None:
        """Take a round's answers; what to answer instead, where they are not all there or never will be."""
        place = self._place(known.number)
        if known.job:
            outcome = self._look_at(known)
            if outcome is None:
                self._take(batch.answers(self.folder, f"{place}/output/", self.task))
            return outcome
        return self._call(known, place)

    def _look_at(self, known: Round) -> StageResult | None:
        job = or_none(self.bedrock.get_model_invocation_job, jobIdentifier=known.job)
        status = job["status"] if job else "gone"
        if job and status in batch.RUNNING:
            text = f"shard {self.name}: batch job {job['jobName']} is {status}"
            return waiting(text, self.plan.poll_seconds)
        if status == "Failed" and known.execution == self.execution:
            return failed(
                f"shard {self.name}: batch job {known.job} failed: "
                f"{(job or {}).get('message') or 'no reason given'}"
            )
        return None

    def _call(self, known: Round, place: str) -> StageResult | None:
        """Make the calls of a round that are still to be made, a part at a time."""
        parts = [key for key in self.folder.names(f"{place}/") if "/answers-" in key]
        given = {str(row.pop("id")): Answer(**row) for key in parts for row in self.folder.rows(key)}
        ids = set(known.records) - given.keys()
        left = [record for record in self._records if record.id in ids]
        end = self.now() + CALL_SECONDS
        for number, start in enumerate(range(0, len(left), PART), start=len(parts)):
            if self.now() > end:
                return waiting(f"shard {self.name}: {len(given)} calls of {len(known.records)} made", 1)
            if not self.is_wanted():
                return failed(f"shard {self.name}: the labelling was stopped")
            asked = calls.ask(self.runtime, left[start : start + PART], self.plan, self.task)
            self.folder.write_rows(
                f"{place}/answers-{number:03d}.jsonl",
                ({"id": record, **asdict(answer)} for record, answer in asked.items()),
            )
            given |= asked
        self._take(given)
        return None

    def _take(self, given: Mapping[str, Answer]) -> None:
        for record, answer in given.items():
            self._answers.setdefault(record, []).append(answer)


def _best(answers: Sequence[Answer]) -> dict[str, Any]:
    """The answer that counts of those to one record: weights if there are any, or else the last reason."""
    for answer in answers:
        if answer.weights:
            return {"weights": answer.weights}
    return {"reason": answers[-1].reason if answers else "never answered"}
