"""One shard of questions, put to everybody who is compared."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from distilled_router.task import converse
from distilled_router.task.converse import NoReplyError, Prompt
from distilled_router.task.task import InvalidOutput, Task
from evaluation.metrics import Answer, Question

CANDIDATE, SERVING, BASE, STATIC = "candidate", "serving", "base", "static"
# A deployment of Nova Micro takes 2,000 requests a minute; a few at a time leave room for live traffic.
CONCURRENCY = 8
# A denied or missing endpoint answers all questions alike: this many in a row end the asking.
MOST_FAILED_CALLS = 20


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Somebody who is compared: a release's endpoint, a model, or the static weights, which need no call.

    `endpoint` is the id or ARN to invoke, `model` that of the model whose price its tokens have. With
    `full_prompt` it gets the teacher's prompt, as the router's fallback does.
    """

    name: str
    title: str
    endpoint: str = ""
    model: str = ""
    full_prompt: bool = False


def ask_all(
    contenders: Sequence[Contender], questions: Sequence[Question], runtime: Any, task: Task
) -> Iterator[dict[str, Any]]:
    """Rows of answers: a contender's name, and an Answer's fields.

    All contenders are asked one question before the next, so that whatever slows the network slows all.
    """
    failed = dict.fromkeys((contender.name for contender in contenders), 0)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for start in range(0, len(questions), MOST_FAILED_CALLS):
            part = questions[start : start + MOST_FAILED_CALLS]
            asked = [one for one in contenders if failed[one.name] < MOST_FAILED_CALLS]

            def answers(question: Question, asked: Sequence[Contender] = asked) -> list[tuple[str, Answer]]:
                return [(one.name, ask(one, question, runtime, task)) for one in asked]

            for given in pool.map(answers, part):
                for name, answer in given:
                    has_failed = answer.weights is None and not answer.was_given
                    failed[name] = failed[name] + 1 if has_failed else 0
                    yield row(name, answer)
            for one in contenders:
                if one not in asked:
                    reason = "not asked: the calls before it failed"
                    yield from (row(one.name, Answer(question.id, None, reason)) for question in part)


def ask(contender: Contender, question: Question, runtime: Any, task: Task) -> Answer:
    """Ask one question as the router asks it: the same prompt, temperature 0, no token more."""
    if contender.name == STATIC:
        return Answer(question.id, task.static_weights)
    prompt = Prompt.base(task) if contender.full_prompt else Prompt.student(task)
    started = time.perf_counter()
    try:
        reply = converse.ask(runtime, contender.endpoint, prompt, question.query)
    except NoReplyError as error:
        return Answer(question.id, None, str(error))
    elapsed = (time.perf_counter() - started) * 1000
    weights, problem = None, ""
    try:
        weights = reply.weights(task)
    except InvalidOutput as error:
        problem = str(error)
    return Answer(
        question.id,
        weights,
        problem,
        latency_ms=elapsed,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
    )


def row(contender: str, answer: Answer) -> dict[str, Any]:
    """An answer as it is kept: without names of fields, since there are hundreds of thousands."""
    return {
        "by": contender,
        "id": answer.id,
        "weights": answer.weights,
        "problem": answer.problem[:300],
        "ms": round(answer.latency_ms, 2),
        "tokens": [answer.input_tokens, answer.output_tokens],
    }


def read(kept: Mapping[str, Any]) -> tuple[str, Answer]:
    """The contender and the answer of a row that was kept."""
    tokens = kept["tokens"]
    return str(kept["by"]), Answer(
        str(kept["id"]),
        kept["weights"],
        str(kept["problem"]),
        float(kept["ms"]),
        int(tokens[0]),
        int(tokens[1]),
    )
