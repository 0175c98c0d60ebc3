"""Step AskModels: ask all contenders the questions of one shard.

A failed call says nothing about a model, so it is no answer. The step waits and asks again for a bounded
time; then ScoreAndGate decides whether enough questions could be asked.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import batched
from typing import Any

from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, not_in_progress, pause, waiting
from distilled_router.release.gate import MINIMUM_ASKED
from distilled_router.release.table import Releases
from distilled_router.task import converse
from distilled_router.task.converse import CONCURRENCY, HOPELESS, NoReplyError, Prompt
from distilled_router.task.task import InvalidOutput, Task
from evaluation.attempt import (
    PLAN,
    QUESTIONS,
    Evaluation,
    Failures,
    Outages,
    Plan,
    answers_folder,
    kept_answers,
    row,
)
from evaluation.contenders import CANDIDATE, LIVE, Contender, models_of
from evaluation.metrics import Answer, Question
from evaluation.unasked import Unasked

# After this many failed calls in a row a contender is not asked any more in this invocation.
MOST_FAILED_CALLS = 20
# Questions whose answers are written at a time: the most that a crash loses.
PART_QUESTIONS = 100
# Seconds after which an invocation asks no further 20 questions. These take at most nine minutes if all calls
# hang, and the function's timeout is 15 minutes.
ASK_SECONDS = 300
# Seconds before failed calls are repeated for the first time.
RETRY_SECONDS = 30
# Seconds to wait where more would hardly help. The policy of a new role takes effect within minutes.
SHORT_SECONDS = 300
# Pauses of a model that answers slowly grow by this much less than those of one that does not answer.
SLOW = 5
# ValidationException: the answer to one query, unless every query gets it.
REFUSED = "refused"
THROTTLED = "throttled"

type Left = tuple[Question, Sequence[Contender]]
"""A question, and the contenders that have not answered it."""


def ask_shard(digest: str, key: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Ask one shard's questions and write the answers in parts; skip questions already answered.

    `key` is the name of the shard's file.
    """
    release, shard = releases.get(digest), key.removesuffix(".jsonl")
    if release is None or release.is_over:
        return not_in_progress(digest)
    folder = evaluation.folder(release)
    plan = folder.read(PLAN) or {}
    if shard not in plan["shards"]:
        return done(f"shard {shard} belongs to a deleted stack of the same name")
    questions = [Question(**row) for row in folder.rows(f"{QUESTIONS}{key}")]
    contenders = models_of(plan)
    asking = Asking(contenders, kept_answers(folder, plan, shard), evaluation.runtime, evaluation.task)
    number, end = len(folder.names(answers_folder(plan, shard))), time.monotonic() + ASK_SECONDS
    for part in batched(asking.left(questions), PART_QUESTIONS):
        # A running function continues after its execution was stopped.
        now = releases.get(digest)
        if now is None or now.is_over:
            return not_in_progress(digest)
        if rows := list(asking.ask(part, end)):
            folder.write_rows(f"{answers_folder(plan, shard)}{number:03d}.jsonl", rows)
            number += 1
        if time.monotonic() > end:
            break
    left = asking.left(questions)
    if left and not asking.has_failed:
        answered = len(questions) - len(left)
        return waiting(f"shard {shard}: {answered} of {len(questions)} questions are answered", 1)
    round_ = Round(digest, shard, len(questions), asking.failures(questions), asking.answering)
    return round_.result(folder, plan, releases, evaluation)


class Asking:
    """Asks contenders in one invocation; knows who has answered what, and whose calls failed."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        kept: Iterable[tuple[str, Answer]],
        runtime: Any,
        task: Task,
    ) -> None:
        """Take the kept answers, which are not requested again."""
        self._contenders, self._runtime, self._task = contenders, runtime, task
        self._answered = {(name, answer.id) for name, answer in kept}
        self._able = {name for name, _ in self._answered}
        self._failed: dict[tuple[str, str], Answer] = {}
        self.answering: set[str] = set()  # who has answered in this invocation
        self._in_a_row = dict.fromkeys((contender.name for contender in contenders), 0)
        self._last: dict[str, Answer] = {}

    def left(self, questions: Iterable[Question]) -> list[Left]:
        """Return the questions that a contender has not answered, each with these contenders."""
        found = (
            (question, [one for one in self._contenders if (one.name, question.id) not in self._answered])
            for question in questions
        )
        return [(question, missing) for question, missing in found if missing]

    def ask(self, part: Sequence[Left], end: float) -> Iterator[dict[str, Any]]:
        """Yield the answers as rows, and keep the failures. Ask no more after `end`, a monotonic time.

        All contenders answer a question before the next one, so that network delays affect all of them.
        """
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            for some in batched(part, MOST_FAILED_CALLS):
                pairs = ((question, one) for question, missing in some for one in missing)
                asked = [(question, one) for question, one in pairs if self._may_ask(one)]
                answers = pool.map(lambda pair: ask(pair[1], pair[0], self._runtime, self._task), asked)
                given = [(one.name, answer) for (_, one), answer in zip(asked, answers, strict=True)]
                able = self._able_among(given)
                for name, answer in given:
                    if kept := self._kept(name, answer, is_able=name in able):
                        yield row(name, kept)
                if time.monotonic() > end:
                    return

    @property
    def has_failed(self) -> bool:
        """Return whether a call failed."""
        return bool(self._failed)

    def failures(self, questions: Iterable[Question]) -> list[tuple[str, Answer]]:
        """Return contender and failed answer for all that is left, also for what was not tried any more."""
        return [
            (one.name, self._failed.get((one.name, question.id)) or self._untried(one, question))
            for question, missing in self.left(questions)
            for one in missing
        ]

    def _untried(self, contender: Contender, question: Question) -> Answer:
        """Return the last failure of a contender that is not asked any more; otherwise the time was up."""
        if self._may_ask(contender):
            return Answer(question.id, None, unavailable="not_asked")
        return replace(self._last[contender.name], id=question.id)

    def _may_ask(self, contender: Contender) -> bool:
        return self._in_a_row[contender.name] < MOST_FAILED_CALLS

    def _able_among(self, given: Sequence[tuple[str, Answer]]) -> set[str]:
        """Return the contenders that answer, so that what they refuse is a query.

        If all of 20 queries are refused, the model is refused.
        """
        replied = {name for name, answer in given if answer.was_asked}
        self._able |= replied
        asked = Counter(name for name, _ in given)
        return replied | {name for name in self._able if asked[name] < MOST_FAILED_CALLS}

    def _kept(self, name: str, answer: Answer, *, is_able: bool) -> Answer | None:
        """Return the answer if it is one, or None for a failed call."""
        if answer.unavailable == REFUSED and is_able:
            answer = replace(answer, unavailable="")
        if answer.was_asked:
            self._in_a_row[name] = 0
            self._answered.add((name, answer.id))
            self.answering.add(name)
            return answer
        self._in_a_row[name] += 1
        self._failed[name, answer.id] = self._last[name] = answer
        return None


@dataclass(frozen=True)
class Round:
    """What is left of a shard's questions after a round: its failed calls; and who answered others."""

    digest: str
    shard: str
    questions: int
    failures: Sequence[tuple[str, Answer]]
    answering: AbstractSet[str] = frozenset()

    def result(self, folder: Folder, plan: Plan, releases: Releases, evaluation: Evaluation) -> StageResult:
        """Write the failures, and return whether to wait for another round.

        The wait is counted from the first failure in any shard, so that many shards don't wait one after
        another; and from the last answer in any shard, since a model that answers slowly is not out.
        """
        before, now = Failures.read(folder, plan, self.shard), evaluation.now()
        names = list(dict.fromkeys(name for name, _ in self.failures))
        since = {name: before.since.get(name, now) for name in names}
        answered = {**before.answered, **dict.fromkeys(self.answering, now)}
        kept = Failures(answers=self.failures, since=since, answered=answered)
        if self.failures or before.answers:
            kept.write(folder, plan, self.shard)
        if not self.failures:
            return done(f"shard {self.shard} is answered")
        outages = Outages.read(folder, plan)
        until = max(outages.begun[name] + self._patience(name, evaluation) for name in names)
        if now >= until:
            # A few questions that failed here are no reason for other shards to wait less.
            lasting = {name: time for name, time in since.items() if self._lacks_answers(name)}
            replace(kept, since=lasting).write(folder, plan, self.shard)
            return done(f"shard {self.shard}: {len(self.failures)} calls failed again and again")
        text = "; ".join(self._told(name, plan) for name in names)
        message = f"{text}; asking again until {datetime.fromtimestamp(until, UTC):%H:%M} UTC"
        if not releases.evaluating(self.digest, message):
            return not_in_progress(self.digest)
        elapsed = 0.0 if not self.answering.isdisjoint(names) else self._elapsed(names, outages, now)
        return waiting(message, min(pause(elapsed, RETRY_SECONDS), math.ceil(until - now)))

    def _elapsed(self, names: Sequence[str], outages: Outages, now: float) -> float:
        """Return the seconds by which the pause grows: those since the last answer, or part of all.

        At most as many rounds bring answers as a shard has questions for its models. The others come ever
        less often, so that all events fit into the execution's history.
        """
        first, begun = (min(times[name] for name in names) for times in (outages.first, outages.begun))
        return max(now - begun, (now - first) / SLOW)

    def _patience(self, name: str, evaluation: Evaluation) -> float:
        """Return for how many seconds a contender is asked again."""
        needed = name == CANDIDATE or (name == LIVE and evaluation.gate.not_worse)
        reasons = self._unasked(name).reasons.keys()
        is_hopeless = reasons <= {*HOPELESS, REFUSED}
        # Throttling says nothing about the queries: also the last few get their turn.
        if needed and not is_hopeless and (self._lacks_answers(name) or THROTTLED in reasons):
            return evaluation.outage_seconds
        return min(SHORT_SECONDS, evaluation.outage_seconds)

    def _lacks_answers(self, name: str) -> bool:
        found = self._unasked(name)
        return found.asked < found.questions * MINIMUM_ASKED

    def _unasked(self, name: str) -> Unasked:
        failed = Unasked.among(answer for by, answer in self.failures if by == name)
        return replace(failed, questions=self.questions)

    def _told(self, name: str, plan: Plan) -> str:
        found, titles = self._unasked(name), {one["name"]: one["title"] for one in plan["contenders"]}
        return f"{titles[name]} could not be asked {found.count} of {found.questions} questions: {found.why}"


def ask(contender: Contender, question: Question, runtime: Any, task: Task) -> Answer:
    """Return a contender's answer, asked with the router's prompt, temperature and token limit."""
    prompt = Prompt.base(task) if contender.full_prompt else Prompt.student(task)
    started = time.perf_counter()
    try:
        reply = converse.ask(runtime, contender.endpoint, prompt, question.query)
    except NoReplyError as error:
        # The text of a refusal may quote the query. The report shows it as the answer to that query, and the
        # release's message where it is the first problem, or the reason why a model refuses all queries.
        problem = str(error) if error.reason == REFUSED else error.loggable or str(error)
        return Answer(question.id, None, problem, unavailable=error.reason)
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
        # The time of a repeated call includes the failed ones and the pauses.
        latency_ms=(reply.latency_ms or 0.0) if reply.retries else elapsed,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
    )
