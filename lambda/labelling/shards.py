"""Label one shard of queries in rounds: records without a valid answer are asked once more.

All state is in the bucket, so that the next invocation continues after a crash or in another execution: it
waits for the rounds in progress and uses all paid answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import NotYetError, ReplacedError, ResourceError, is_transient, or_none
from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, failed, pause, waiting
from distilled_router.bedrock import roles
from distilled_router.bedrock.roles import RoleNotReadyError
from distilled_router.cost.batch_limits import BATCH_MINIMUM
from distilled_router.data.labelling_plan import Plan, shard_name, shard_of
from distilled_router.task.task import Task
from labelling import batch, calls, failures, life
from labelling.answers import Answer
from labelling.records import Query, Record, records

logger = Logger(child=True)

# Tries for a record with invalid answers; after the last one it becomes a reject.
MOST_TRIES = 2
# Rounds of one execution: one for all records, and one for those without a valid answer.
MOST_ROUNDS = 2
# Largest share of a shard's records that may stay without any answer; more means a systematic failure.
MOST_UNANSWERED = 0.1
# Single calls whose answers are written at a time: the most that a crash loses.
PART = 25
# Seconds that one invocation spends on calls; the function's timeout is 15 minutes.
CALL_SECONDS = 600
# Seconds for which calls are repeated that fail for a passing reason, without any answer in between.
OUTAGE_SECONDS = 3_600
# Seconds before they are repeated for the first time.
RETRY_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: a batch job, or single calls for these record ids."""

    number: int
    execution: str
    job: str = ""
    records: Sequence[str] = ()


@dataclass
class Shard:
    """One shard with its clients and settings.

    `is_wanted` returns whether the execution still runs. A batch job counts as gone only after it was not
    found for `absence_seconds`: its records would be paid again. `waited` are the seconds that the shard has
    taken so far.
    """

    name: str
    plan: Plan
    task: Task
    folder: Folder
    bedrock: Any
    runtime: Any
    owner: str
    execution: str
    role: str
    tags: Mapping[str, str]
    network: Mapping[str, Sequence[str]] = field(default_factory=dict)
    is_wanted: Callable[[], bool] = lambda: True
    absence_seconds: float = 0.0
    waited: float = 0.0
    now: Callable[[], float] = time.monotonic
    _answers: dict[str, list[Answer]] = field(default_factory=dict, init=False)

    @property
    def pause(self) -> int:
        """Return the seconds before the next poll of a job."""
        return pause(self.waited, self.plan.poll_seconds)

    def label(self) -> StageResult:
        """Take the next step; return `done` if every query of the shard has its answers.

        The reason of a failure is kept in the bucket, since the state machine can't hold those of all shards.
        """
        if self._labelled in self.folder.names("labelled/"):
            return done(f"shard {self.name} is labelled")
        try:
            result = self._step()
        except RoleNotReadyError as error:
            if not error.is_overdue(self.waited):
                return waiting(f"shard {self.name}: {error}", roles.RETRY_SECONDS)
            result = failed(f"shard {self.name}: {error}")
        except NotYetError as error:
            return waiting(f"shard {self.name}: {error}", self.pause)
        except ResourceError as error:
            result = failed(f"shard {self.name}: {error}")
        except Exception as error:
            if not is_transient(error):
                failures.keep(self.folder, self.name, self.execution, f"{type(error).__name__}: {error}")
            raise
        if result["outcome"] == "failed":
            failures.keep(self.folder, self.name, self.execution, result["message"])
        return result

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
                f"{f', for example: {reasons[0]}' if reasons else ''}. Existing answers are kept; fix the "
                "cause and restart the labelling."
            )
        self.folder.write_rows(self._labelled, self._rows())
        return done(f"shard {self.name} is labelled: {len(self._records)} records in {len(rounds)} rounds")

    # State in the bucket

    @property
    def _labelled(self) -> str:
        return f"labelled/{self.name}.jsonl"

    def _place(self, number: int) -> str:
        return f"rounds/{self.name}/{number:03d}"

    @cached_property
    def _queries(self) -> list[Query]:
        return list(map(Query.read, self.folder.rows(f"queries/{self.name}.jsonl")))

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
                **query.row(),
                "answers": [_best(answers) for answers in given],
                "input_tokens": sum(answer.input_tokens for answer in every),
                "output_tokens": sum(answer.output_tokens for answer in every),
            }

    # Rounds

    def _begin(self, missing: Sequence[Record], number: int) -> StageResult:
        """Start a round for these records; from here on the teacher is billed."""
        if not self.is_wanted():
            return failed(f"shard {self.name}: the labelling was stopped")
        logger.info("round begins", shard=self.name, round=number, records=len(missing))
        if len(missing) >= BATCH_MINIMUM:
            return self._begin_batch(missing, number)
        known = Round(number=number, execution=self.execution, records=[record.id for record in missing])
        self.folder.write(f"{self._place(number)}/round.json", asdict(known))
        return self._collect(known) or waiting(f"shard {self.name}: round {number} has ended", 1)

    def _begin_batch(self, missing: Sequence[Record], number: int) -> StageResult:
        place = self._place(number)
        batch.write_input(self.folder, f"{place}/input.jsonl", missing, self.plan, self.task)
        name = batch.job_name(self.owner, life.read(self.folder), self.name, number)
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
            # The execution stopped during the call; its cleanup may have listed jobs before this one existed.
            batch.stop(self.bedrock, arn)
            return failed(f"shard {self.name}: the labelling was stopped")
        known = Round(number=number, execution=self.execution, job=arn)
        self.folder.write(f"{place}/round.json", asdict(known))
        return waiting(f"shard {self.name}: batch job {name} has {len(missing)} records", self.pause)

    def _collect(self, known: Round) -> StageResult | None:
        """Add a round's answers; return a result if they are incomplete or the job failed, otherwise None."""
        place = self._place(known.number)
        if known.job:
            outcome = self._poll(known)
            given = {} if outcome else batch.answers(self.folder, f"{place}/output/", self.task)
            if given:
                # Bedrock takes no version of a file. So its input is checked after the job, too.
                list(self.folder.rows(f"{place}/input.jsonl"))
                self._take(given)
            return outcome
        return self._call(known, place)

    def _poll(self, known: Round) -> StageResult | None:
        """Return a result while the job runs or if it failed; None if its answers can be read."""
        job = confirmed(
            lambda: or_none(self.bedrock.get_model_invocation_job, jobIdentifier=known.job),
            self.absence_seconds,
        )
        status = job["status"] if job else "gone"
        if job and status in batch.RUNNING:
            text = f"shard {self.name}: batch job {job['jobName']} is {status}"
            return waiting(text, self.pause)
        if status == "Failed" and known.execution == self.execution:
            return failed(
                f"shard {self.name}: batch job {known.job} failed: "
                f"{(job or {}).get('message') or 'no reason given'}"
            )
        return None

    def _call(self, known: Round, place: str) -> StageResult | None:
        """Make a round's outstanding calls, and write the answers in parts."""
        parts = [key for key in self.folder.names(f"{place}/") if "/answers-" in key]
        given = {str(row.pop("id")): Answer(**row) for key in parts for row in self.folder.rows(key)}
        ids = set(known.records) - given.keys()
        left = [record for record in self._records if record.id in ids]
        end = self.now() + CALL_SECONDS
        for number, start in enumerate(range(0, len(left), PART), start=len(parts)):
            if self.now() > end:
                return waiting(f"shard {self.name}: {len(given)} of {len(known.records)} calls done", 1)
            if not self.is_wanted():
                return failed(f"shard {self.name}: the labelling was stopped")
            asked, later = calls.ask(self.runtime, left[start : start + PART], self.plan, self.task)
            pause_seconds = self._outage(place, is_over=bool(asked)) if later else 0
            if not pause_seconds:
                asked |= later
            if asked:
                self.folder.write_rows(
                    f"{place}/answers-{number:03d}.jsonl",
                    ({"id": record, **asdict(answer)} for record, answer in asked.items()),
                )
            given |= asked
            if pause_seconds:
                reason = next(iter(later.values())).reason
                text = f"shard {self.name}: {len(given)} of {len(known.records)} calls done; {reason}"
                return waiting(text, pause_seconds)
        self._take(given)
        return None

    def _outage(self, place: str, *, is_over: bool) -> int:
        """Return for how many seconds to wait before failed calls are repeated; 0 if they failed too long.

        Only the time since the last answer counts, of this execution: a teacher that is throttled below one
        call a second answers in the end.
        """
        kept = self.folder.read(f"{place}/outage.json") or {}
        is_new = is_over or kept.get("execution") != self.execution
        since = self.waited if is_new else float(kept["since"])
        if is_new:
            self.folder.write(f"{place}/outage.json", {"execution": self.execution, "since": since})
        elapsed = self.waited - since
        return 0 if elapsed >= OUTAGE_SECONDS else pause(elapsed, RETRY_SECONDS)

    def _take(self, given: Mapping[str, Answer]) -> None:
        for record, answer in given.items():
            self._answers.setdefault(record, []).append(answer)


def check_shards(plan: Plan, folder: Folder) -> None:
    """Raise ReplacedError unless the folder has the queries of all shards that were published.

    What is missing from a list can't be recognised by a seal.
    """
    expected = {shard_name(number) for number in range(plan.shards)}
    found = {shard_of(key) for key in folder.names("queries/")}
    if plan.shards and found != expected:
        raise ReplacedError(
            f"{folder.uri('queries/')} has other shards than the {plan.shards} that were published: missing "
            f"{sorted(expected - found)[:5]}, unknown {sorted(found - expected)[:5]}. Find out who deleted "
            "or wrote them (the bucket's access logs), and raise release.attempt: queries are published "
            "again, and existing answers are used."
        )


def _best(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the first weights in a record's answers, or the last reason if there are none."""
    for answer in answers:
        if answer.weights:
            return {"weights": answer.weights}
    return {"reason": answers[-1].reason if answers else "never answered"}
