"""The router: answers every query with weights, even if all models fail."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from distilled_router.env import RouterEnv
from distilled_router.release.route import Route, Share
from distilled_router.task.converse import Prompt, asked
from distilled_router.task.task import Task
from router.budget import Budget, jitter
from router.cache import AnswerCache, Entry
from router.first_sights import FirstSights
from router.requests import DIRECT, Asked, BadRequestError, caller, is_http, read, respond
from router.route_cache import RouteCache
from router.sources import BASE, DISTILLED, HEAD, OF_THE_CALLER, STATIC, Models
from router.telemetry import Telemetry, Trace
from router.xray import Span, XRay

if TYPE_CHECKING:
    from distilled_router.head.model import Head
    from router.heads import Heads

# How a classification head is used: in place of static weights, or also for what it is sure of.
LAST_RESORT, FIRST = "last_resort", "first"
# Reasons other than a failed call: the route has no release, no route was ever read, or the router has a bug.
NO_RELEASE, NO_ROUTE, INTERNAL = "no_release", "no_route", "internal"
# The student answers in a third of the default budget. If it hangs, the base model still needs time.
DISTILLED_PART = 0.5
# Short, so that a fallback answer does not long outlive its cause.
BASE_CACHE_SECONDS = 30.0
# Reserved at the end of the budget, and before the function's timeout, for writing the answer.
RESERVE_SECONDS = 0.02

# Queries of a batch that run in parallel. A deployment of Nova Micro takes 2,000 requests a minute.
SIDE_BY_SIDE = 16
_BATCH = ThreadPoolExecutor(max_workers=SIDE_BY_SIDE, thread_name_prefix="batch")


class Request(NamedTuple):
    """What all queries of a request have in common."""

    id: str | None
    caller: str


class Question(NamedTuple):
    """One query, with all that its sources need."""

    trace: Trace
    budget: Budget
    request: Request
    now: float
    share: Share | None
    head: Head | None
    cache: AnswerCache


class Router:
    """Answers requests from the cache, a classification head, the distilled model, the base model or static
    weights."""

    def __init__(
        self,
        env: RouterEnv,
        task: Task,
        *,
        models: Models,
        routes: RouteCache,
        telemetry: Telemetry,
        xray: XRay,
        heads: Heads | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a router. Without `heads`, it uses no classification head.

        `now` is the wall clock in seconds, for ages and expiries, and `clock` the monotonic one, for budgets.
        """
        self._env = env
        self._time_budget = env.time_budget_ms / 1000
        self._task = task
        self._models = models
        self._routes = routes
        self._telemetry = telemetry
        self._xray = xray
        self._heads = heads
        self._now, self._clock = now, clock
        self._student = Prompt.student(task)
        self._base = Prompt.base(task)
        self._lock = threading.Lock()
        # The route's version, and answers by it.
        self._answers = 0, self._empty_cache()
        self._sights = FirstSights()

    def handle(self, event: object, context: object = None) -> dict[str, Any]:
        """Return the response to an HTTP API event or a direct invocation. Never raises."""
        http = is_http(event)
        request = Request(getattr(context, "aws_request_id", None), caller(event) if http else DIRECT)
        try:
            given = read(
                event,
                http=http,
                max_characters=self._task.max_query_characters,
                batch_queries=self._env.batch_queries,
            )
        except BadRequestError as error:
            return respond(error.answer, http=http, status=400)
        except Exception as error:  # answer with static weights
            trace = Trace(weights=self._task.static_weights, reason=INTERNAL)
            trace.unexpected("router", error)
            answer, traces = self._answer(trace), [trace]
        else:
            answer, traces = self._answered(given, context, request)
        self._telemetry.finished(traces, request.id)
        return respond(answer, http=http)

    def _answered(
        self, given: Asked, context: object, request: Request
    ) -> tuple[dict[str, Any], list[Trace]]:
        """Return the answer to a query or a batch, and what happened to each valid query."""
        if not isinstance(given, str):
            answers, traces = self._answer_all(given, context, request)
            return {"answers": answers}, traces
        trace = self._ask_for(asked(given), self._budget(self._seconds(context)), request)
        return self._answer(trace), [trace]

    def _answer_all(
        self, given: Sequence[str | BadRequestError], context: object, request: Request
    ) -> tuple[list[dict[str, Any]], list[Trace]]:
        """Return the answers of a batch in its order, and what happened to each valid query.

        Queries run in parallel, each with its own budget within the batch's. Equal queries are asked once.
        `latency_ms` counts from the start of the batch, so that it includes the wait for others.
        """
        batch = Budget(self._seconds(context, self._env.batch_time_budget_ms / 1000), self._clock)
        texts = [query if isinstance(query, BadRequestError) else asked(query) for query in given]
        firsts = list(dict.fromkeys(text for text in texts if isinstance(text, str)))

        def ask(text: str) -> tuple[Trace, float]:
            return self._ask_for(text, self._budget(batch.remaining), request), batch.spent

        known = dict(zip(firsts, _BATCH.map(ask, firsts), strict=True))
        answers: list[dict[str, Any]] = []
        traces: dict[str, Trace] = {}
        again: list[Trace] = []
        for text in texts:
            if isinstance(text, BadRequestError):
                answers.append(text.answer)
                continue
            trace, seconds = known[text]
            if text in traces:
                trace = Trace(
                    *(text, trace.weights, 0.0, trace.release, trace.source, trace.reason),
                    cached=True,
                    failures=trace.failures,
                    has_head=trace.has_head,
                )
                self._see(trace)
                again.append(trace)
            else:
                traces[text] = trace
            answers.append({**self._answer(trace), "latency_ms": _milliseconds(seconds)})
        return answers, [*traces.values(), *again]

    def _ask_for(self, query: str, budget: Budget, request: Request) -> Trace:
        """Return what happened to the text of one query, with its weights. Never raises."""
        trace = Trace(query, self._task.static_weights)
        try:
            trace.weights = self._weights(budget, trace, request)
        except Exception as error:  # answer with static weights
            trace.source, trace.reason, trace.cached = STATIC, trace.reason or INTERNAL, False
            trace.unexpected("router", error)
        self._see(trace)
        trace.latency_ms = budget.spent * 1000
        self._xray.send(trace.spans, trace.annotations, self._now(), trace.latency_ms / 1000)
        return trace

    def _see(self, trace: Trace) -> None:
        trace.in_rollout = self._sights.is_counting
        if trace.release and trace.counts_for_canary:
            trace.sight = self._sights.count(trace.release, trace.query)

    def _answer(self, trace: Trace) -> dict[str, Any]:
        return {
            "weights": dict(trace.weights),
            "intent": self._task.dominant(trace.weights),
            "source": trace.source,
            "reason": trace.reason,
            "release": trace.release if trace.source in (DISTILLED, HEAD) else None,
            "latency_ms": _milliseconds(trace.latency_ms / 1000),
            "cached": trace.cached,
        }

    def _budget(self, most: float) -> Budget:
        """Return the budget of one query, of at most `most` seconds."""
        whole = self._time_budget - RESERVE_SECONDS
        return Budget(min(whole, most), self._clock, whole)

    def _seconds(self, context: object, most: float | None = None) -> float:
        left = getattr(context, "get_remaining_time_in_millis", None)
        seconds = self._time_budget if most is None else most
        if callable(left):
            seconds = min(seconds, left() / 1000)
        return seconds - RESERVE_SECONDS

    def _weights(self, budget: Budget, trace: Trace, request: Request) -> dict[str, float]:
        one = self._question(budget, trace, request)
        found = one.cache.get(trace.query, trace.release, one.now)
        if found and found.caller in (None, request.caller):
            trace.source, trace.reason, trace.cached = found.source, found.reason, True
            return found.weights
        sure = self._sure(one)
        if sure and jitter(0.0, 1.0) >= self._env.explore_share:
            return self._keep(one, HEAD, sure, self._env.cache_seconds)
        trace.explored = sure is not None
        if student := self._asked(one, DISTILLED):
            trace.difference = _difference(sure, student) if sure else None
            return self._keep(one, DISTILLED, student, self._env.cache_seconds)
        if sure:
            return self._keep(one, HEAD, sure, BASE_CACHE_SECONDS)
        if base := self._asked(one, BASE):
            return self._keep(one, BASE, base, BASE_CACHE_SECONDS)
        return self._last_resort(one) or self._task.static_weights

    def _question(self, budget: Budget, trace: Trace, request: Request) -> Question:
        now = self._now()
        route, cache = self._route(budget, now, trace)
        share = route.choose(trace.query, now)
        trace.release = share.digest if share else None
        head = self._heads.of(share) if self._heads and not route.head_off else None
        trace.has_head = head is not None
        return Question(trace, budget, request, now, share, head, cache)

    def _route(self, budget: Budget, now: float, trace: Trace) -> tuple[Route, AnswerCache]:
        """Return the route, and the cache of answers by this version of it."""
        began = budget.spent
        route, problem = self._routes.current(budget, now)
        if problem is not None:
            trace.spans.append(Span("DynamoDB", "GetItem", began, budget.spent, problem))
            trace.route_read(problem)
        with self._lock:
            # Another query of a batch may have read a younger route, from which nothing goes back.
            if route is self._routes.latest:
                self._follow(route, now, trace)
            version, cache = self._answers
        return route, cache if version == route.version else AnswerCache(0, self._env.memory_mb)

    def _follow(self, route: Route, now: float, trace: Trace) -> None:
        if self._heads:
            try:
                self._heads.follow(route, now)
            except Exception as error:  # a bug of the router: other sources are still asked
                trace.unexpected(HEAD, error)
        if route.version == self._answers[0]:
            return
        # A new cache, since a query that began with the former route may still keep an answer.
        self._answers = route.version, self._empty_cache()
        self._sights.follow(route)
        in_use = {share.endpoint for share in route.shares} | {self._env.base_model}
        self._models.forget(keep=frozenset(in_use))

    def _empty_cache(self) -> AnswerCache:
        return AnswerCache(self._env.cache_entries, self._env.memory_mb)

    def _keep(
        self, one: Question, source: str, weights: dict[str, float], seconds: float
    ) -> dict[str, float]:
        """Record which source answered, and cache its weights."""
        trace = one.trace
        trace.source = source
        own = one.request.caller if trace.reason in OF_THE_CALLER else None
        entry = Entry(weights, source, trace.reason, own)
        one.cache.put(trace.query, trace.release, entry, one.now, min(seconds, self._env.cache_seconds))
        return weights

    def _sure(self, one: Question) -> dict[str, float] | None:
        """Return the head's weights if it answers first and is sure of them."""
        head, trace = one.head, one.trace
        if head is None or self._env.head_mode != FIRST:
            return None
        try:
            if head.is_too_long(trace.query):
                return None
            answer = head.answer(trace.query)
            return answer.weights if head.accepts(answer) else None
        except Exception as error:  # a bug of the head: the student is asked
            trace.unexpected(HEAD, error)
            return None

    def _last_resort(self, one: Question) -> dict[str, float] | None:
        """Return the head's weights, however sure it is of them; None if there is no head that works.

        They are not cached, so that they do not outlive their cause.
        """
        if one.head is None or HEAD in one.trace.failures:
            return None
        try:
            weights = one.head.answer(one.trace.query).weights
        except Exception as error:  # a bug of the head: static weights answer
            one.trace.unexpected(HEAD, error)
            return None
        one.trace.source = HEAD
        return weights

    def _asked(self, one: Question, source: str) -> dict[str, float] | None:
        """Return a model's weights; None if it gives none, or there is no release, or a bug of the router."""
        trace, budget = one.trace, one.budget
        if source == BASE:
            model, prompt, part = self._env.base_model, self._base, 1.0
        elif one.share:
            model, prompt, part = one.share.endpoint, self._student, DISTILLED_PART
        else:
            return None
        began = budget.spent
        try:
            outcome = self._models.ask(
                model,
                prompt,
                trace.query,
                caller=one.request.caller,
                budget=budget,
                at_most=budget.seconds * part,
                now=one.now,
            )
        except Exception as error:  # a bug of the router: the next source is still asked
            trace.unexpected(source, error)
            trace.reason = trace.reason or INTERNAL
            return None
        if outcome.called:
            trace.spans.append(Span("Bedrock Runtime", "Converse", began, budget.spent, outcome.reason))
        if source == DISTILLED:
            trace.distilled = outcome
        else:
            trace.base = outcome
        if outcome.reason:
            trace.reason = trace.reason or outcome.reason
            trace.failed(source, outcome, model)
        elif source == BASE and one.share is None:
            trace.reason = NO_RELEASE if self._routes.is_known else NO_ROUTE
        return outcome.weights


def _difference(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the mean absolute difference between the weights of two answers."""
    return math.fsum(abs(one[label] - other[label]) for label in one) / len(one)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
