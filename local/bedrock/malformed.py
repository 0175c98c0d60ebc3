"""Malformed answers for injected faults, of the kinds that models and Bedrock sometimes give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORDS = ("high", "low", "medium", "none")


def _largest(text: str, change: Callable[[float], float]) -> str:
    """Return the text with its largest number changed; changing a zero might leave the answer valid."""
    found = max(_NUMBER.finditer(text), key=lambda number: float(number[0]), default=None)
    if found is None:
        return text
    return f"{text[: found.start()]}{change(float(found[0])):g}{text[found.end() :]}"


def _wrong_sum(text: str) -> str:
    """Return the text with a larger largest number, so that the sum is wrong in any scale."""
    return _largest(text, lambda number: number * 2 + 0.5)


def _not_numbers(text: str) -> str:
    words = iter(_WORDS * (1 + text.count(" ") + text.count(",")))
    return _NUMBER.sub(lambda _: next(words, "none"), text)


def _too_few(text: str) -> str:
    found = list(_NUMBER.finditer(text))
    return text[: found[-1].start()].rstrip() if found else ""


SPOIL: Mapping[str, Callable[[str], str]] = {
    "output_prose": lambda _: (
        "I'd say this request is mostly about pictures, with a little of everything else."
    ),
    "output_wrapped": lambda text: f"Sure! Here is the answer:\n```\n{text}\n```",
    "output_truncated": lambda text: text[: len(text) // 2],
    "output_empty": lambda _: "",
    "output_wrong_sum": _wrong_sum,
    "output_negative": lambda text: _largest(text, lambda number: -abs(number)),
    "output_not_numbers": _not_numbers,
    "output_too_few": _too_few,
}


type Body = dict[str, Any]
"""A response of Converse, or a body of InvokeModel in Nova's form."""


def _with_content(body: Body, content: list[Body], **changes: Any) -> Body:
    return {**body, "output": {"message": {"role": "assistant", "content": content}}, **changes}


def _content(body: Body) -> list[Body]:
    content: list[Body] = body["output"]["message"]["content"]
    return content


def _reasoning(body: Body) -> Body:
    thought = {"text": "I weigh what the request asks for.", "signature": "c3RhbmQtaW4="}
    return _with_content(body, [{"reasoningContent": {"reasoningText": thought}}, *_content(body)])


RESHAPE: Mapping[str, Callable[[Body], Body]] = {
    "output_two_blocks": lambda body: _with_content(
        body, [{"text": "These are the weights."}, *_content(body)]
    ),
    "output_reasoning": _reasoning,
    "output_no_content": lambda body: _with_content(body, []),
    "output_cut_off": lambda body: _with_content(
        body, [{"text": SPOIL["output_truncated"](_content(body)[0]["text"])}], stopReason="max_tokens"
    ),
    "output_guarded": lambda body: _with_content(
        body,
        [{"text": "Sorry, the model can't answer this request."}],
        stopReason="guardrail_intervened",
    ),
}
"""Faults that change a response's content blocks or stop reason."""
