"""What the teacher answered to one record: weights, a text that holds none, or no answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    def failed(cls, reason: str) -> Answer:
        """No answer came."""
        return cls(reason=reason[:MOST_CHARACTERS], asked=False)

    @classmethod
    def read(cls, reply: Mapping[str, Any], task: Task) -> Answer:
        """What Converse, or a batch's modelOutput of the same form, says."""
        usage = reply.get("usage") or {}
        tokens = int(usage.get("inputTokens", 0)), int(usage.get("outputTokens", 0))
        content = ((reply.get("output") or {}).get("message") or {}).get("content") or []
        text = "".join(str(block.get("text") or "") for block in content if isinstance(block, Mapping))
        if not text.strip():
            return cls(None, f"empty answer ({reply.get('stopReason', 'no reason')})", True, *tokens)
        try:
            return cls(task.parse(text), "", True, *tokens)
        except InvalidOutput as error:
            return cls(None, str(error)[:MOST_CHARACTERS], True, *tokens)


def request(task: Task, query: str, *, max_tokens: int, temperature: float) -> dict[str, Any]:
    """The teacher's question in Converse's form: the full prompt, and the query as the user's turn alone."""
    return {
        "system": [{"text": task.teacher_prompt}],
        "messages": [{"role": "user", "content": [{"text": query}]}],
        "inferenceConfig": {"maxTokens": max_tokens, "temperature": temperature},
    }
