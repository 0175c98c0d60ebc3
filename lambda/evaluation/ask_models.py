"""Step AskModels: ask all contenders the questions of one shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from typing import Any

from distilled_router.aws.state_machine import StageResult, done, not_in_progress, waiting
from distilled_router.release.table import Releases
from distilled_router.task import converse
from distilled_router.task.converse import CONCURRENCY, NoReplyError, Prompt
from distilled_router.task.task import InvalidOutput, Task
from evaluation.attempt import PLAN, QUESTIONS, Evaluation, answers_folder, row
from evaluation.contenders import STATIC, Contender
from evaluation.metrics import Answer, Question

# After this many failed calls in a row a contender is not asked any more: its endpoint is denied or missing.
MOST_FAILED_CALLS = 20
# Questions whose answers are written at a time: the most that a crash loses.
PART_QUESTIONS = 100
# Seconds after which an invocation starts no new part; the function's timeout is 15 minutes.
ASK_SECONDS = 480


def ask_shard(digest: str, key: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Ask one shard's questions and write the answers in parts; skip questions already answered.

    `key` is the name of the shard's file.
    """
    release, shard = releases.get(digest), key.removesuffix(".jsonl")
    if release is None or release.is_final:
        return not_in_progress(digest)
    folder = evaluation.folder(release)
    plan = folder.read(PLAN) or {}
    if shard not in plan["shards"]:
        return done(f"shard {shard} belongs to a deleted stack of the same name")
    contenders = [Contender(**one) for one in plan["contenders"]]
    asked = [Question(**row) for row in folder.rows(f"{QUESTIONS}{key}")]
    kept = folder.names(answers_folder(plan, shard))
    answered = {str(row["id"]) for part in kept for row in folder.rows(part)}
    left = [question for question in asked if question.id not in answered]
    end = time.monotonic() + ASK_SECONDS
    for number, part in enumerate(batched(left, PART_QUESTIONS), start=len(kept)):
        # A running function continues after its execution was stopped.
        now = releases.get(digest)
        if now is None or now.is_final:
            return not_in_progress(digest)
        rows = ask_all(contenders, part, evaluation.runtime, evaluation.task)
        folder.write_rows(f"{answers_folder(plan, shard)}{number:03d}.jsonl", rows)
        answered |= {question.id for question in part}
        if time.monotonic() > end and len(answered) < len(asked):
            return waiting(f"shard {shard}: {len(answered)} of {len(asked)} questions are answered", 1)
    return done(f"shard {shard} is answered")


def ask_all(
    contenders: Sequence[Contender], questions: Sequence[Question], runtime: Any, task: Task
) -> Iterator[dict[str, Any]]:
    """Yield the contenders' answers as rows.

    All contenders answer a question before the next one, so that network delays affect all of them.
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
                    reason = "not asked: the previous calls failed"
                    yield from (row(one.name, Answer(question.id, None, reason)) for question in part)


def ask(contender: Contender, question: Question, runtime: Any, task: Task) -> Answer:
    """Return a contender's answer, asked with the router's prompt, temperature and token limit."""
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
