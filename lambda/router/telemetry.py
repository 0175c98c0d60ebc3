"""Metrics and logs of requests."""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from distilled_router.env import METRICS_NAMESPACE, RouterEnv
from router.costs import Costs
from router.sources import BASE, DISTILLED, STATIC, Outcome
from router.xray import Span


@dataclass(slots=True)
class Trace:
    """What happened to one query."""

    # The release that the route chose, even if another source answered.
    release: str | None = None
    source: str = STATIC
    # Why the intended model did not answer; None if it did.
    reason: str | None = None
    cached: bool = False
    errors: int = 0
    # Reason by failed source, e.g. {"distilled": "throttled"}.
    failures: dict[str, str] = field(default_factory=dict)
    distilled: Outcome | None = None
    base: Outcome | None = None
    # Calls to AWS services, in their order.
    spans: list[Span] = field(default_factory=list)

    @property
    def annotations(self) -> dict[str, str | bool | None]:
        """Return the searchable annotations for X-Ray."""
        found = {"release": self.release, "source": self.source, "reason": self.reason}
        return {**found, "cached": self.cached}


class Telemetry:
    """Writes metrics and logs. Queries are personal data and are logged only if LOG_QUERIES is on."""

    def __init__(self, env: RouterEnv, logger: Logger) -> None:
        """Use the owner as `service` in metrics."""
        self._owner = env.owner
        self._log_queries = env.log_queries
        self._logger = logger
        self._costs = Costs(env)
        self._lock = threading.Lock()
        self._metrics = EphemeralMetrics(namespace=METRICS_NAMESPACE, service=env.owner)

    def failed(self, trace: Trace, source: str, reason: str, detail: str = "", endpoint: str = "") -> None:
        """Record that a source did not answer."""
        trace.failures[source] = reason
        if reason != "circuit_open":  # logged once, when the breaker opened
            self._logger.warning(
                "source failed",
                source=source,
                reason=reason,
                detail=detail,
                endpoint=endpoint,
                release=trace.release,
            )

    def unexpected(self, trace: Trace, source: str, error: Exception) -> None:
        """Record a bug. An unknown error may quote the query, so only its type and location are logged."""
        trace.errors += 1
        trace.failures[source] = type(error).__name__
        frames = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        self._logger.error("unexpected error", source=source, error=type(error).__name__, frames=frames)

    def route_read(self, trace: Trace, problem: str) -> None:
        """Record a read of the route, and why it, or a part of it, could not be read.

        It counts for no release: the release that the last route chose has no part in it.
        """
        if problem:
            trace.failures["route"] = problem.partition(":")[0]
            self._logger.warning("route not read", problem=problem)
        with self._lock:
            try:
                self._metrics.add_metric("RouteErrors", "Count", int(bool(problem)))
                self._metrics.flush_metrics()
            except Exception as error:  # the answer must not fail because of metrics
                self._metrics.clear_metrics()
                self.unexpected(trace, "metrics", error)

    def finished(
        self, trace: Trace, latency_ms: float, request_id: str | None, query: str, weights: dict[str, float]
    ) -> None:
        """Record that a query was answered."""
        if self._log_queries:
            self._logger.info("answered", query=query, weights=weights, source=trace.source)
        # Queries of a batch end in parallel, and the metrics object holds one set at a time.
        with self._lock:
            try:
                self._emit(trace, latency_ms, request_id)
            except Exception as error:  # the answer must not fail because of metrics
                self._metrics.clear_metrics()
                self.unexpected(trace, "metrics", error)

    def _emit(self, trace: Trace, latency_ms: float, request_id: str | None) -> None:
        metrics, release = self._metrics, trace.release or BASE
        asked, outcome = (DISTILLED, trace.distilled) if trace.release else (BASE, trace.base)
        outcome = outcome or Outcome(called=False)
        metrics.add_metadata("failures", trace.failures)
        metrics.add_metadata("request_id", request_id)
        metrics.add_metric("Requests", "Count", 1)
        metrics.add_metric("Fallback", "Count", int(trace.source != DISTILLED))
        metrics.add_metric("StaticAnswers", "Count", int(trace.source == STATIC))
        # 0 or 1 per request, like the other counts, so that the average is a rate.
        metrics.add_metric("RouterErrors", "Count", int(trace.errors > 0))
        metrics.add_metric("CacheHits", "Count", int(trace.cached))
        metrics.add_metric("InvalidOutput", "Count", int(outcome.invalid))
        metrics.add_metric("Latency", "Milliseconds", latency_ms)
        if outcome.answered and asked != trace.source:
            # The request counts for the source that answered, the tokens for the source that used them.
            self._flush(release, trace.source)
            self._add_call(outcome)
            self._flush(release, asked)
        else:
            self._add_call(outcome)
            self._flush(release, trace.source)
        if trace.release and trace.base and trace.base.called:
            # The base model's call must not count for the release that it replaced.
            metrics.add_metric("InvalidOutput", "Count", int(trace.base.invalid))
            self._add_call(trace.base)
            self._flush(BASE, BASE)

    def _add_call(self, outcome: Outcome) -> None:
        if outcome.model_latency is None:  # no answer, no tokens
            return
        self._metrics.add_metric("ModelLatency", "Milliseconds", outcome.model_latency)
        self._metrics.add_metric("InputTokens", "Count", outcome.input_tokens)
        self._metrics.add_metric("OutputTokens", "Count", outcome.output_tokens)
        usd = self._costs.usd(outcome.model, outcome.input_tokens, outcome.output_tokens)
        if usd is not None:
            self._metrics.add_metric("CostUsd", "None", usd)

    def _flush(self, release: str, source: str) -> None:
        # The dimension set with `service` alone is there by default; these calls add the other sets.
        self._metrics.add_dimensions(service=self._owner, release=release)
        self._metrics.add_dimensions(service=self._owner, source=source)
        self._metrics.flush_metrics()
