"""One round of a shard as single calls, if there are too few records for a batch job."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distilled_router.aws.errors import ResourceError
from distilled_router.data.labelling_plan import Plan
from distilled_router.task import converse
from distilled_router.task.converse import HOPELESS, NoReplyError, Reason
from distilled_router.task.task import Task
from labelling.answers import Answer, prompt
from labelling.records import Record

PASSING: frozenset[Reason] = frozenset({"not_ready", "throttled", "unavailable", "unreachable"})
"""Reasons that say nothing about the query, and pass by themselves."""


def ask(
    runtime: Any, records: Sequence[Record], plan: Plan, task: Task
) -> tuple[dict[str, Answer], dict[str, Answer]]:
    """Return the teacher's answers by record id, and those of calls to repeat later; a few run in parallel.

    Raises ResourceError if the teacher can't be called at all.
    """
    later: dict[str, Answer] = {}

    asked_with = prompt(plan, task)

    def answered(record: Record) -> Answer:
        try:
            return Answer.read(converse.ask(runtime, plan.teacher, asked_with, record.query), task)
        except NoReplyError as error:
            if error.reason in HOPELESS:
                raise ResourceError(
                    f"Teacher {plan.teacher} can't be called: {error}. Check that the account has access to "
                    "it in this Region, and check distillation.teacher in the environment's settings."
                ) from error
            failed = Answer.failed(error)
            if error.reason in PASSING:
                later[record.id] = failed
            return failed

    with ThreadPoolExecutor(plan.concurrency) as pool:
        given = zip((record.id for record in records), pool.map(answered, records), strict=True)
        # All calls have ended once the dictionary is complete.
        answers = dict(given)
    return {record: answer for record, answer in answers.items() if record not in later}, later
