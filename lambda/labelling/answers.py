"""What the teacher answered to one record: weights, a text that holds none, or no answer."""

from __future__ import annotations

from dataclasses import dataclass

from distilled_router.data.labelling_plan import Plan
from distilled_router.task.converse import NoReplyError, Prompt, Reply
from distilled_router.task.task import InvalidOutput, Task

# A text or an error is kept as a reason, not as a document.
MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """Weights; or else a reason, which `asked` says the teacher is to blame for, and not the call."""

    weights: dict[str, float] | None = None
    reason: str = ""
    asked: bool = True
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def failed(cls, error: NoReplyError) -> Answer:
        """Return the answer to a record whose call failed."""
        return cls(reason=str(error)[:MOST_CHARACTERS], asked=False)

    @classmethod
    def read(cls, reply: Reply, task: Task) -> Answer:
        """Return the weights in a reply, or why it holds none."""
        weights, reason = None, ""
        try:
            weights = reply.weights(task)
        except InvalidOutput as error:
            reason = str(error)[:MOST_CHARACTERS]
        return cls(weights, reason, True, reply.input_tokens, reply.output_tokens)


def prompt(plan: Plan, task: Task) -> Prompt:
    """Return the prompt that the teacher is asked with: the task's full one, by the plan's settings."""
    return Prompt.teacher(task, max_tokens=plan.max_tokens, temperature=plan.temperature)
