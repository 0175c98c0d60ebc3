"""Metrics and logs of requests."""

from __future__ import annotations

import math
import threading
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from distilled_router.env import METRICS_NAMESPACE, RouterEnv
from router.costs import Costs
from router.first_sights import Sight
from router.sources import BASE, DISTILLED, HEAD, OF_THE_CALLER, STATIC, Outcome
from router.xray import Span

_UNITS = {
    "Latency": "Milliseconds",
    "ModelLatency": "Milliseconds",
    "CostUsd": "None",
    "HeadDifference": "None",
}


class Note(NamedTuple):
    """A line for the log: its level, message and fields."""

    level: str
    message: str
    fields: tuple[tuple[str, Any], ...]


@dataclass(slots=True)
class Trace:
    """What happened to one query."""

    query: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    latency_ms: float = 0.0
    # The release that the route chose, even if another source answered.
    release: str | None = None
    source: str = STATIC
    # Why the intended model did not answer; None if it did.
    reason: str | None = None
    cached: bool = False
    errors: int = 0
    # Reason by failed source, e.g. {"distilled": "throttled"}.
    failures: dict[str, str] = field(default_factory=dict)
    # Whether the route could not be read, if this query read it.
    route_errors: list[int] = field(default_factory=list)
    distilled: Outcome | None = None
    base: Outcome | None = None
    # Whether the release's classification head was loaded.
    has_head: bool = False
    # Whether the head would have answered, but the model was asked all the same.
    explored: bool = False
    # Mean absolute difference between the weights of head and student; None unless both answered.
    difference: float | None = None
    # As what the query counts for the rollout's canary analysis; None if it does not count.
    sight: Sight | None = None
    # Calls to AWS services, in their order.
    spans: list[Span] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def annotations(self) -> dict[str, str | bool | None]:
        """Return the searchable annotations for X-Ray."""
        found = {"release": self.release, "source": self.source, "reason": self.reason}
        return {**found, "cached": self.cached}

    @property
    def is_of_the_caller(self) -> bool:
        """Return whether the intended model did not answer because of its caller's use."""
        return self.reason in OF_THE_CALLER

    @property
    def is_by_head(self) -> bool:
        """Return whether the classification head answered first, so that no model was asked."""
        return self.source == HEAD and self.reason is None

    @property
    def counts_for_canary(self) -> bool:
        """Return whether the query counts for the release: one not answered for its caller's use does not."""
        return not self.is_of_the_caller

    @property
    def is_without_a_model(self) -> bool:
        """Return whether no model answered: static weights did, or the head as a last resort."""
        return self.source == STATIC or (self.source == HEAD and BASE in self.failures)

    @property
    def is_denied_to_the_caller(self) -> bool:
        """Return whether no model answered, each because of its caller's use."""
        causes = {*self.failures.values()}
        return self.is_without_a_model and self.is_of_the_caller and causes <= OF_THE_CALLER

    def failed(self, source: str, outcome: Outcome, endpoint: str) -> None:
        """Record that a source did not answer."""
        self.failures[source] = outcome.reason
        # `Models` logs what is not called because of a circuit or an allowance, not for each query.
        if outcome.called or outcome.reason == "no_time":
            self._note(
                "warning",
                "source failed",
                source=source,
                reason=outcome.reason,
                detail=outcome.detail,
                endpoint=endpoint,
                release=self.release,
            )

    def unexpected(self, source: str, error: Exception) -> None:
        """Record a bug. An unknown error may quote the query, so only its type and location are logged."""
        self.errors += 1
        self.failures[source] = type(error).__name__
        frames = tuple(
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        )
        self._note("error", "unexpected error", source=source, error=type(error).__name__, frames=frames)

    def route_read(self, problem: str) -> None:
        """Record a read of the route, and why it, or a part of it, could not be read.

        It counts for no release: the release that the last route chose has no part in it.
        """
        self.route_errors.append(int(bool(problem)))
        if problem:
            self.failures["route"] = problem.partition(":")[0]
            self._note("warning", "route not read", problem=problem)

    def _note(self, level: str, message: str, **fields: Any) -> None:
        self.notes.append(Note(level, message, tuple(fields.items())))


type Dimensions = tuple[str, str]
"""The release and the source that values count for; no source for those that count for the release only."""


@dataclass(slots=True)
class Document:
    """Metrics of one release and source: a value for each query, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)
    # Reasons by failed source.
    failures: dict[str, set[str]] = field(default_factory=dict)


class Telemetry:
    """Writes metrics and logs. Queries are personal data and are logged only if LOG_QUERIES is on.

    A request writes one document for each release and source, and equal lines once, however many queries it
    has. CloudWatch takes up to 100 values of a metric in a document (CloudWatch user guide, specification of
    the embedded metric format), which is the largest batch; a query adds one to each metric.
    """

    def __init__(self, env: RouterEnv, logger: Logger) -> None:
        """Use the owner as `service` in metrics."""
        self._owner = env.owner
        self._log_queries = env.log_queries
        self._logger = logger
        self._costs = Costs(env)
        self._lock = threading.Lock()
        self._metrics = EphemeralMetrics(namespace=METRICS_NAMESPACE, service=env.owner)

    def finished(self, traces: Sequence[Trace], request_id: str | None) -> None:
        """Record that the queries of a request were answered."""
        documents: dict[Dimensions, Document] = {}
        for trace in traces:
            try:
                self._count(trace, documents)
            except Exception as error:  # the others' metrics are still written
                trace.unexpected("metrics", error)
        self._log(traces)
        try:
            self._emit(documents, [error for trace in traces for error in trace.route_errors], request_id)
        except Exception as error:  # the answer must not fail because of metrics
            lost = Trace()
            lost.unexpected("metrics", error)
            self._log([lost])

    def _log(self, traces: Sequence[Trace]) -> None:
        """Log what was noted, equal lines once with the number of queries that they are about."""
        for note, queries in Counter(note for trace in traces for note in trace.notes).items():
            write = self._logger.error if note.level == "error" else self._logger.warning
            write(note.message, **dict(note.fields), queries=queries)
        if self._log_queries:
            for trace in traces:
                self._logger.info("answered", query=trace.query, weights=trace.weights, source=trace.source)

    def _count(self, trace: Trace, documents: dict[Dimensions, Document]) -> None:
        """Add the values of one query, all or none."""
        found = [(of, name, _number(value)) for of, name, value in self._values(trace)]
        for of, name, value in found:
            documents.setdefault(of, Document()).values.setdefault(name, []).append(value)
        failures = documents[trace.release or BASE, trace.source].failures
        for source, reason in trace.failures.items():
            failures.setdefault(source, set()).add(reason)

    def _values(self, trace: Trace) -> Iterator[tuple[Dimensions, str, float]]:
        """Yield each value with the release and source that it counts for, and its metric."""
        release = trace.release or BASE
        asked, outcome = (DISTILLED, trace.distilled) if trace.release else (BASE, trace.base)
        outcome = outcome or Outcome(called=False)
        of = (release, trace.source)
        # 0 or 1 for each query, so that the average is a rate.
        yield of, "Requests", 1
        yield of, "CallerFallback", trace.is_of_the_caller
        yield of, "RouterErrors", trace.errors > 0
        yield of, "CacheHits", trace.cached
        # The rates of a model are of the queries that the head left to it.
        if not trace.is_by_head:
            yield of, "InvalidOutput", outcome.invalid
        yield of, "Latency", round(trace.latency_ms, 3)
        # A caller's own use says nothing about the models, and must not dilute what others' queries say.
        if not trace.is_of_the_caller and not trace.is_by_head:
            yield of, "Fallback", trace.source != DISTILLED
        if not trace.is_denied_to_the_caller:
            yield of, "StaticAnswers", trace.is_without_a_model
        if trace.release and trace.has_head:
            yield of, "HeadAnswers", trace.is_by_head
        if trace.difference is not None:
            yield of, "HeadDifference", trace.difference
        yield from (((release, ""), name, value) for name, value in _canary(trace, outcome))
        # The request counts for the source that answered, the tokens for the source that used them.
        yield from self._call(outcome, (release, asked))
        if trace.release and trace.base and trace.base.called:
            # The base model's call must not count for the release that it replaced.
            yield (BASE, BASE), "InvalidOutput", trace.base.invalid
            yield from self._call(trace.base, (BASE, BASE))

    def _call(self, outcome: Outcome, of: Dimensions) -> Iterator[tuple[Dimensions, str, float]]:
        if outcome.model_latency is None:  # no answer, no tokens
            return
        yield of, "ModelLatency", outcome.model_latency
        yield of, "InputTokens", outcome.input_tokens
        yield of, "OutputTokens", outcome.output_tokens
        usd = self._costs.usd(outcome.model, outcome.input_tokens, outcome.output_tokens)
        if usd is not None:
            yield of, "CostUsd", round(usd, 12)

    def _emit(
        self, documents: dict[Dimensions, Document], route_errors: list[int], request_id: str | None
    ) -> None:
        # The metrics object holds one set at a time.
        with self._lock:
            try:
                if route_errors:
                    self._flush({"RouteErrors": list(map(float, route_errors))})
                for (release, source), document in documents.items():
                    if "Requests" in document.values:
                        failures = {name: ", ".join(sorted(of)) for name, of in document.failures.items()}
                        self._metrics.add_metadata("failures", failures)
                        self._metrics.add_metadata("request_id", request_id)
                    if source:
                        # The set with `service` alone is there by default.
                        self._metrics.add_dimensions(service=self._owner, release=release)
                        self._metrics.add_dimensions(service=self._owner, source=source)
                    else:
                        self._metrics.add_dimension("release", release)
                    self._flush(document.values)
            finally:
                self._metrics.clear_metrics()

    def _flush(self, values: dict[str, list[float]]) -> None:
        # Not by add_metric, which writes a document of its own at the hundredth value.
        self._metrics.metric_set.update(
            (name, {"Unit": _UNITS.get(name, "Count"), "StorageResolution": 60, "Value": found})
            for name, found in values.items()
        )
        self._metrics.flush_metrics()


def _canary(trace: Trace, outcome: Outcome) -> Iterator[tuple[str, float]]:
    """Yield what a query counts for the canary analysis.

    A query that explored the model stands for those that the head answered, so it counts apart.
    """
    if trace.sight is None:
        return
    if trace.sight is Sight.AGAIN:
        yield "CanaryRepeated", 1
        return
    if trace.is_by_head:
        yield "CanaryHead", 1
    else:
        kind = "CanaryExplored" if trace.explored else "Canary"
        yield f"{kind}Errors", trace.errors > 0
        yield f"{kind}Fallback", trace.source != DISTILLED
        yield f"{kind}InvalidOutput", outcome.invalid
    yield "CanaryProcesses", trace.sight is Sight.FIRST


def _number(value: float) -> float:
    """Return a value that CloudWatch takes, whole numbers without a fraction. Raises for others."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return int(number) if number.is_integer() else number
