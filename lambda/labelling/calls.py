"""One round of a shard as single calls, where there are too few records for a batch job."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import ResourceError, code, described
from distilled_router.data.labelling_plan import Plan
from distilled_router.task.task import Task
from labelling.answers import Answer, request
from labelling.records import Record

# An answer to all questions alike: no other question would fare better.
_HOPELESS = frozenset({"AccessDeniedException", "ResourceNotFoundException"})


def ask(runtime: Any, records: Sequence[Record], plan: Plan, task: Task) -> dict[str, Answer]:
    """Ask each record, a few at a time; by the record's id.

    Raises ResourceError where the teacher can't be asked at all.
    """

    def answered(record: Record) -> Answer:
        question = request(task, record.query, max_tokens=plan.max_tokens, temperature=plan.temperature)
        try:
            return Answer.read(runtime.converse(modelId=plan.teacher, **question), task)
        except ClientError as error:
            if code(error) in _HOPELESS:
                raise ResourceError(
                    f"Teacher {plan.teacher} can't be asked: {described(error)}. Check that the account has "
                    "access to it in this Region, and distillation.teacher in the environment's settings."
                ) from error
            return Answer.failed(described(error))
        except BotoCoreError as error:
            return Answer.failed(described(error))

    with ThreadPoolExecutor(plan.concurrency) as pool:
        return dict(zip((record.id for record in records), pool.map(answered, records), strict=True))
