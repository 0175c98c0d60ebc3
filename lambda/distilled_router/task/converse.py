"""A question as every model is asked it: by the router, by a judgement and by a roll-out's probes alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from distilled_router.task.task import Task


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt, and the most tokens that its answer takes."""

    text: str
    max_tokens: int

    @classmethod
    def student(cls, task: Task) -> Self:
        """The short prompt that the student was trained with."""
        return cls(task.student_prompt, task.most_tokens())

    @classmethod
    def base(cls, task: Task) -> Self:
        """The teacher's full prompt; it may ask for a reasoning, too."""
        return cls(task.teacher_prompt, max(200, task.most_tokens("json")))


def request(model: str, prompt: Prompt, query: str) -> dict[str, Any]:
    """Converse's parameters. The query is the user's turn and nothing else, as in the training rows."""
    return {
        "modelId": model,
        "system": [{"text": prompt.text}],
        "messages": [{"role": "user", "content": [{"text": query}]}],
        "inferenceConfig": {"maxTokens": prompt.max_tokens, "temperature": 0.0},
    }


def text(reply: Mapping[str, Any]) -> str:
    """What the model wrote, to its first block of text; empty where it wrote nothing."""
    content = ((reply.get("output") or {}).get("message") or {}).get("content") or []
    return next((block["text"] for block in content if isinstance(block.get("text"), str)), "")
