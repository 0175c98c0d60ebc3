"""One round of a shard as single calls, if there are too few records for a batch job."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distilled_router.aws.errors import ResourceError
from distilled_router.data.labelling_plan import Plan
from distilled_router.task import converse
from distilled_router.task.converse import HOPELESS, NoReplyError
from distilled_router.task.task import Task
from labelling.answers import Answer, prompt
from labelling.records import Record


def ask(runtime: Any, records: Sequence[Record], plan: Plan, task: Task) -> dict[str, Answer]:
    """Return the teacher's answers by record id, asking a few records in parallel.

    Raises ResourceError if the teacher can't be called at all.
    """

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
            return Answer.failed(error)

    with ThreadPoolExecutor(plan.concurrency) as pool:
        return dict(zip((record.id for record in records), pool.map(answered, records), strict=True))
