"""The teacher's answer to one record: weights, or why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from distilled_router.data.labelling_plan import Plan
from distilled_router.task.converse import NoReplyError, Prompt, Reply
from distilled_router.task.task import InvalidOutput, Task

# Longer reasons are cut: answers are kept by the hundred thousand.
MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one record.

    Attributes:
        weights: None if there are none.
        reason: why there are none.
        asked: whether the teacher replied; False if the call failed.
        input_tokens: tokens of the request.
        output_tokens: tokens of the reply.
    """

    weights: dict[str, float] | None = None
    reason: str = ""
    asked: bool = True
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def failed(cls, error: NoReplyError) -> Answer:
        """Return the answer to a record whose call failed."""
        return cls(reason=_reason(error), asked=False)

    @classmethod
    def read(cls, reply: Reply, task: Task) -> Answer:
        """Return the weights in a reply, or why it holds none."""
        weights, reason = None, ""
        try:
            weights = reply.weights(task)
        except InvalidOutput as error:
            reason = _reason(error)
        return cls(weights, reason, True, reply.input_tokens, reply.output_tokens)


def _reason(error: Exception) -> str:
    """Return why there are no weights, short, and without halves of characters, which no answer can hold."""
    return str(error)[:MOST_CHARACTERS].encode(errors="replace").decode()


def prompt(plan: Plan, task: Task) -> Prompt:
    """Return the teacher's prompt, with the plan's token limit and temperature."""
    return Prompt.teacher(task, max_tokens=plan.max_tokens, temperature=plan.temperature)
