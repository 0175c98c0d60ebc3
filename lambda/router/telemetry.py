"""What a request leaves behind in metrics and logs."""

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
    """What happened to one request."""

    # The release that the route chose, also where another source answered for it.
    release: str | None = None
    source: str = STATIC
    # Why the model that should have answered did not; None where it did.
    reason: str | None = None
    cached: bool = False
    errors: int = 0
    # Sources that failed, each with its reason, e.g. {"distilled": "throttled"}.
    failures: dict[str, str] = field(default_factory=dict)
    distilled: Outcome | None = None
    base: Outcome | None = None
    # The calls of services, in their order.
    spans: list[Span] = field(default_factory=list)

    @property
    def annotations(self) -> dict[str, str | bool | None]:
        """What a trace can be searched for."""
        found = {"release": self.release, "source": self.source, "reason": self.reason}
        return {**found, "cached": self.cached}


class Telemetry:
    """Writes both. Neither holds the query, unless LOG_QUERIES is on: searches are personal data."""

    def __init__(self, env: RouterEnv, logger: Logger) -> None:
        """Write with the owner as the `service`."""
        self._owner = env.owner
        self._log_queries = env.log_queries
        self._logger = logger
        self._costs = Costs(env)
        self._lock = threading.Lock()
        self._metrics = EphemeralMetrics(namespace=METRICS_NAMESPACE, service=env.owner)

    def failed(self, trace: Trace, source: str, reason: str, detail: str = "", endpoint: str = "") -> None:
        """A source did not answer, so the next one is asked."""
        trace.failures[source] = reason
        if reason != "circuit_open":  # said once, when it opened
            self._logger.warning(
                "source failed",
                source=source,
                reason=reason,
                detail=detail,
                endpoint=endpoint,
                release=trace.release,
            )

    def unexpected(self, trace: Trace, source: str, error: Exception) -> None:
        """A mistake of ours. Its place is logged, not its text, which may quote the query."""
        trace.errors += 1
        trace.failures[source] = type(error).__name__
        frames = [
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
        self._logger.error("unexpected error", source=source, error=type(error).__name__, frames=frames)

    def route_problem(self, trace: Trace, problem: str) -> None:
        """The route could not be read, or not all of it; the last good one serves."""
        trace.errors += 1
        trace.failures["route"] = problem.partition(":")[0]
        self._logger.warning("route not read", problem=problem)

    def finished(
        self, trace: Trace, latency_ms: float, request_id: str | None, query: str, weights: dict[str, float]
    ) -> None:
        """The request has its answer."""
        if self._log_queries:
            self._logger.info("answered", query=query, weights=weights, source=trace.source)
        # One set of metrics at a time: queries of a batch end side by side.
        with self._lock:
            try:
                self._emit(trace, latency_ms, request_id)
            except Exception as error:  # metrics are lost, the answer is not
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
        # 0 or 1 a request, like its neighbours, so that an average is a rate.
        metrics.add_metric("RouterErrors", "Count", int(trace.errors > 0))
        metrics.add_metric("CacheHits", "Count", int(trace.cached))
        metrics.add_metric("InvalidOutput", "Count", int(outcome.invalid))
        metrics.add_metric("Latency", "Milliseconds", latency_ms)
        if outcome.answered and asked != trace.source:
            # The request counts for the source that answered it, tokens for the one that took them.
            self._flush(release, trace.source)
            self._add_call(outcome)
            self._flush(release, asked)
        else:
            self._add_call(outcome)
            self._flush(release, trace.source)
        if trace.release and trace.base and trace.base.called:
            # What the base model did must not count for the release that it stood in for.
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
        # `service` alone is there by default; these add the other sets.
        self._metrics.add_dimensions(service=self._owner, release=release)
        self._metrics.add_dimensions(service=self._owner, source=source)
        self._metrics.flush_metrics()
