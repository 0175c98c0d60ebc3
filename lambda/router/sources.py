"""Asking a model on Bedrock: a distilled endpoint or the base model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.task.converse import NoReplyError, Prompt, Reply, ask
from distilled_router.task.task import InvalidOutput, Task
from router.breaker import Breaker
from router.budget import Budget, OutOfTimeError, jitter

DISTILLED, BASE, STATIC = "distilled", "base", "static"
"""Where weights come from, in the order in which they are asked; the last asks nobody."""

# With less than this part of the budget left no model answers: asking would only cost tokens.
LEAST_PART = 0.1
RETRY_PAUSE = (0.02, 0.08)

_RETRYABLE = frozenset({"throttled", "not_ready", "unavailable", "unreachable"})
# The endpoint answered: asking it for another query makes sense.
_ANSWERED = frozenset({"", "invalid_output", "empty_output"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of asking `model`. Weights, or a reason why there are none."""

    model: str = ""
    weights: dict[str, float] | None = None
    reason: str = ""
    detail: str = ""
    called: bool = True
    model_latency: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def answered(self) -> bool:
        """Whether the model answered, whatever it said: Bedrock then reports its time and its tokens."""
        return self.model_latency is not None

    @property
    def invalid(self) -> bool:
        """Whether the model answered something that is no answer."""
        return self.reason in {"invalid_output", "empty_output"}


class Models:
    """Asks models, each behind its own circuit breaker."""

    def __init__(
        self,
        bedrock: Any,
        task: Task,
        logger: Logger,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask through a bedrock-runtime client that does not retry by itself."""
        self._bedrock = bedrock
        self._task = task
        self._logger = logger
        self._pause = pause
        self._breakers: dict[str, Breaker] = {}

    def ask(
        self, model: str, prompt: Prompt, query: str, *, budget: Budget, at_most: float, now: float
    ) -> Outcome:
        """Ask for the query's weights, for no longer than `at_most` seconds; never raises for a failure."""
        end = budget.spent + min(at_most, budget.remaining)
        if end - budget.spent < budget.whole * LEAST_PART:
            return Outcome(reason="no_time", called=False)
        breaker = self._breakers.setdefault(model, Breaker())
        if not breaker.allows(now):
            return Outcome(reason="circuit_open", called=False)
        outcome = self._attempt(model, prompt, query, budget, end)
        wait = jitter(*RETRY_PAUSE)
        if outcome.reason in _RETRYABLE and end - budget.spent - wait > budget.whole * LEAST_PART:
            self._pause(wait)
            outcome = self._attempt(model, prompt, query, budget, end)
        if outcome.reason in _ANSWERED:
            # Invalid output is no reason to stop asking: queries made for that could switch a release off.
            breaker.succeeded()
        # In a whole budget it might have answered: a batch that runs out of time must not switch it off.
        elif not (outcome.reason == "timed_out" and budget.is_cut) and breaker.failed(now):
            self._logger.warning("circuit opened", endpoint=model, reason=outcome.reason)
        return outcome

    def forget(self, keep: frozenset[str]) -> None:
        """Drop what is known of endpoints that are no longer in use."""
        known = list(self._breakers.items())  # others of a batch may add one meanwhile
        self._breakers = {model: breaker for model, breaker in known if model in keep}

    def _attempt(self, model: str, prompt: Prompt, query: str, budget: Budget, end: float) -> Outcome:
        try:
            reply = budget.call(lambda: ask(self._bedrock, model, prompt, query), at_most=end - budget.spent)
        except OutOfTimeError:
            return Outcome(reason="timed_out")
        except NoReplyError as error:
            return Outcome(reason=error.reason, detail=error.loggable)
        return self._read(model, reply)

    def _read(self, model: str, reply: Reply) -> Outcome:
        known: dict[str, Any] = {
            "model": model,
            "model_latency": reply.latency_ms,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
        }
        if reply.is_empty:
            return Outcome(reason="empty_output", detail=reply.stop_reason, **known)
        try:
            # The text of a model is parsed and never used otherwise, whatever a query made it say.
            return Outcome(weights=reply.weights(self._task), **known)
        except InvalidOutput:
            return Outcome(reason="invalid_output", detail=reply.stop_reason, **known)
