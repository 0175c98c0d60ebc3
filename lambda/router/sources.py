"""Call a model on Bedrock: the distilled model or the base model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.task.converse import NoReplyError, Prompt, Reply, ask
from distilled_router.task.task import InvalidOutput, Task
from router.allowances import Allowances, RefusedError
from router.breaker import Breaker, Result
from router.budget import Budget, OutOfTimeError, jitter

DISTILLED, BASE, HEAD, STATIC = "distilled", "base", "head", "static"
"""Sources of weights. The classification head and static weights need no model."""

# With less than this share of the budget left, no model answers in time: asking would only cost tokens.
LEAST_PART = 0.1
RETRY_PAUSE = (0.02, 0.08)

_RETRYABLE = frozenset({"throttled", "not_ready", "unavailable", "unreachable"})
# Reasons that hold for a query's caller only.
OF_THE_CALLER = frozenset({"throttled", "over_allowance"})
# The model endpoint answered, so the breaker stays closed: crafted queries must not turn a release off.
_ANSWERED = frozenset({"", "invalid_output", "empty_output"})
# They say nothing about the endpoint: a query or its caller is the cause, or a bug of the router.
_OF_NO_ENDPOINT = frozenset({"refused", "throttled", "internal"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of asking `model`: weights, or the reason why there are none."""

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
        """Return whether the model answered, even with invalid output. Bedrock then reports its latency."""
        return self.model_latency is not None

    @property
    def invalid(self) -> bool:
        """Return whether the model's output is invalid or empty."""
        return self.reason in {"invalid_output", "empty_output"}


class Models:
    """Calls models, each behind its own circuit breaker and within each caller's allowance."""

    def __init__(
        self,
        bedrock: Any,
        task: Task,
        logger: Logger,
        quota: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Create an instance.

        Args:
            bedrock: a client of Bedrock's runtime: `router.services.BedrockRuntime`, or what has its methods.
            task: parses what models answer.
            logger: writes which circuits opened.
            quota: requests that a model takes a minute.
            pause: waits before a retry.
        """
        self._bedrock = bedrock
        self._task = task
        self._logger = logger
        self._pause = pause
        self._breakers: dict[str, Breaker] = {}
        self._allowances = Allowances(quota)

    def ask(
        self,
        model: str,
        prompt: Prompt,
        query: str,
        *,
        caller: str,
        budget: Budget,
        at_most: float,
        now: float,
    ) -> Outcome:
        """Return the query's weights, or the reason for a failure, within `at_most` seconds."""
        end = budget.spent + min(at_most, budget.remaining)
        if end - budget.spent < budget.whole * LEAST_PART:
            return Outcome(reason="no_time", called=False)
        # First, since an allowance pays only for calls that are made.
        breaker = self._breakers.setdefault(model, Breaker())
        if not (permit := breaker.enter(now)):
            return Outcome(reason="circuit_open", called=False)
        allowance = self._allowances.of(model, caller, now)
        try:
            own = allowance.enter(now)
        except RefusedError as refused:
            breaker.leave(permit, "unknown", now)
            if refused.reason == "over_allowance" and allowance.is_to_log(now):
                self._logger.warning("allowance used up", endpoint=model, caller=caller)
            return Outcome(reason=refused.reason, called=False)
        outcome = Outcome(reason="internal")
        try:
            outcome = self._attempt(model, prompt, query, budget, end)
            if self._may_retry(outcome, budget, end) and allowance.take(now):
                outcome = self._attempt(model, prompt, query, budget, end)
        finally:
            opened = breaker.leave(permit, _of_endpoint(outcome, budget), now)
            opened_for_caller = allowance.leave(own, _of_caller(outcome), now)
        if opened:
            self._logger.warning("circuit opened", endpoint=model, reason=outcome.reason)
        if opened_for_caller:
            self._logger.warning("circuit opened", endpoint=model, reason=outcome.reason, caller=caller)
        return outcome

    def _may_retry(self, outcome: Outcome, budget: Budget, end: float) -> bool:
        """Return, after a pause, whether another call may help and has time; False at once if not."""
        wait = jitter(*RETRY_PAUSE)
        if outcome.reason not in _RETRYABLE or end - budget.spent - wait <= budget.whole * LEAST_PART:
            return False
        self._pause(wait)
        return True

    def forget(self, keep: frozenset[str]) -> None:
        """Remove the breakers of model endpoints that are no longer in use."""
        known = list(self._breakers.items())  # other queries of a batch may add one meanwhile
        self._breakers = {model: breaker for model, breaker in known if model in keep}

    def _attempt(self, model: str, prompt: Prompt, query: str, budget: Budget, end: float) -> Outcome:
        try:
            reply = budget.call(
                lambda seconds: ask(self._bedrock.within(seconds), model, prompt, query),
                at_most=end - budget.spent,
            )
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
            # Model output is only parsed, never used in any other way: a query may have injected text.
            return Outcome(weights=reply.weights(self._task), **known)
        except InvalidOutput:
            return Outcome(reason="invalid_output", detail=reply.stop_reason, **known)


def _of_endpoint(outcome: Outcome, budget: Budget) -> Result:
    """Return what an outcome says about the endpoint."""
    if outcome.reason in _ANSWERED:
        return "answered"
    # A timeout in a reduced budget does not count, so that a batch that runs out of time opens no circuit.
    if outcome.reason in _OF_NO_ENDPOINT or (outcome.reason == "timed_out" and budget.is_cut):
        return "unknown"
    return "failed"


def _of_caller(outcome: Outcome) -> Result:
    """Return what an outcome says about the caller's use of the endpoint."""
    if outcome.reason in _ANSWERED:
        return "answered"
    return "failed" if outcome.reason == "throttled" else "unknown"
