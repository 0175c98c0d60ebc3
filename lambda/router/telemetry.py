"""Metrics and logs of requests."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger

from distilled_router.env import METRICS_NAMESPACE, RouterEnv
from router.costs import Costs
from router.first_sights import Sight
from router.sources import BASE, DISTILLED, HEAD, OF_THE_CALLER, STATIC, Outcome
from router.xray import Span

# Metrics with `service` alone, which alarms read. CloudWatch bills each name, with each set of dimensions'
# values, for each hour in which it is written. These have a value for each query that they are about.
MEASURES = {"Latency": "Milliseconds", "Fallback": "Count", "CostUsd": "None", "HeadDifference": "None"}
# These are written only when they are 1. A rate is their sum, divided by the number of values of a measure.
EVENTS = {"RouterErrors", "CallerFallback", "StaticAnswers", "InvalidOutput"}
# Reads of the route are written for so long after one that failed.
NORMAL_SECONDS = 3_600.0
# What a rollout reads of a release, besides the canary metrics, with `service` and `release`.
OF_RELEASES = {"Fallback", "HeadAnswers"}
# Zeros that the dashboard's graphs need in the log.
_SHOWN = {"InvalidOutput"}


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
    # Whether the query was answered while a candidate is rolled out.
    in_rollout: bool = False
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


type Attribution = tuple[str, str]
"""The release and the source that values count for."""
type Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Line:
    """The values of one query that count for one release and source.

    `canary` are those that only a rollout reads.
    """

    of: Attribution
    values: Values
    canary: Values = field(default_factory=dict)
    # Reasons by failed source.
    failures: Mapping[str, str] = field(default_factory=dict)


class Telemetry:
    """Writes metrics and logs. Queries are personal data and are logged only if LOG_QUERIES is on.

    A query is one line in CloudWatch's embedded metric format, with all its values as fields. Alarms and
    rollouts read the metrics in it; the dashboard's other graphs read the fields (CloudWatch Logs Insights).
    Tokens of a model that did not answer have a line of their own.
    """

    def __init__(self, env: RouterEnv, logger: Logger, now: Callable[[], float] = time.time) -> None:
        """Use the owner as `service` in metrics. `now` returns the wall clock in seconds."""
        self._owner = env.owner
        self._log_queries = env.log_queries
        self._logger = logger
        self._costs = Costs(env)
        self._now = now
        # When a read of the route last failed.
        self._failed_at = -math.inf

    def finished(self, traces: Sequence[Trace], request_id: str | None) -> None:
        """Record that the queries of a request were answered."""
        lines: list[Line] = []
        for trace in traces:
            try:
                lines += self._lines(trace)
            except Exception as error:  # the others' metrics are still written
                trace.unexpected("metrics", error)
        self._log(traces)
        reads = [float(error) for trace in traces for error in trace.route_errors]
        try:
            self._write(lines, reads, request_id)
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

    def _lines(self, trace: Trace) -> Iterator[Line]:
        """Yield the lines of one query, all or none."""
        found: dict[Attribution, Values] = {}
        for of, name, value in [(of, name, _number(value)) for of, name, value in self._values(trace)]:
            found.setdefault(of, {})[name] = value
        request = trace.release or BASE, trace.source
        canary: Values = {}
        if trace.in_rollout and trace.release:
            canary = {name: value for name, value in found[request].items() if name in OF_RELEASES}
            canary |= {name: _number(value) for name, value in _canary(trace)}
        for of, values in found.items():
            is_request = of == request
            yield Line(of, values, canary if is_request else {}, trace.failures if is_request else {})

    def _values(self, trace: Trace) -> Iterator[tuple[Attribution, str, float]]:
        """Yield each value with the release and source that it counts for, and its metric."""
        release = trace.release or BASE
        asked, outcome = (DISTILLED, trace.distilled) if trace.release else (BASE, trace.base)
        outcome = outcome or NOT_CALLED
        of = (release, trace.source)
        # 0 or 1 for each query, so that the average is a rate.
        yield of, "CallerFallback", trace.is_of_the_caller
        yield of, "RouterErrors", trace.errors > 0
        yield of, "CacheHits", trace.cached
        # The rates of a model are of the queries that the head left to it.
        if not trace.is_by_head:
            yield of, "InvalidOutput", outcome.invalid
        yield of, "Latency", round(trace.latency_ms, 1)
        # A caller's own use says nothing about the models, and must not dilute what others' queries say.
        if not trace.is_of_the_caller and not trace.is_by_head:
            yield of, "Fallback", trace.source != DISTILLED
        if not trace.is_denied_to_the_caller:
            yield of, "StaticAnswers", trace.is_without_a_model
        if trace.release and trace.has_head:
            yield of, "HeadAnswers", trace.is_by_head
        if trace.difference is not None:
            yield of, "HeadDifference", round(trace.difference, 4)
        # The request counts for the source that answered, the tokens for the source that used them.
        yield from self._call(outcome, (release, asked))
        if trace.release and trace.base and trace.base.called:
            # The base model's call must not count for the release that it replaced.
            yield (BASE, BASE), "InvalidOutput", trace.base.invalid
            yield from self._call(trace.base, (BASE, BASE))

    def _call(self, outcome: Outcome, of: Attribution) -> Iterator[tuple[Attribution, str, float]]:
        if outcome.model_latency is None:  # no answer, no tokens
            return
        yield of, "ModelLatency", outcome.model_latency
        yield of, "InputTokens", outcome.input_tokens
        yield of, "OutputTokens", outcome.output_tokens
        usd = self._costs.usd(outcome.model, outcome.input_tokens, outcome.output_tokens)
        if usd is not None:
            yield of, "CostUsd", round(usd, 12)

    def _write(self, lines: Sequence[Line], reads: Sequence[float], request_id: str | None) -> None:
        """Write the lines of a request and its reads of the route."""
        now = self._now()
        if any(reads):
            self._failed_at = now
        is_told = now - self._failed_at < NORMAL_SECONDS
        written = [self._read(read, now) for read in reads if is_told]
        written += [self._document(line, now, request_id) for line in lines]
        sys.stdout.write("".join(f"{json.dumps(one, separators=(',', ':'))}\n" for one in written))
        sys.stdout.flush()

    def _read(self, error: float, now: float) -> dict[str, Any]:
        directive = _directive(["service"], {"RouteErrors": "Count"})
        return {**_metadata(now, directive), "service": self._owner, "RouteErrors": error}

    def _document(self, line: Line, now: float, request_id: str | None) -> dict[str, Any]:
        """Return a line as a document, without zeros that nobody reads."""
        release, source = line.of
        values = {
            name: value
            for name, value in (line.values | line.canary).items()
            if value or name not in EVENTS or name in _SHOWN or name in line.canary
        }
        units = {
            name: MEASURES.get(name, "Count")
            for name, value in line.values.items()
            if name in MEASURES or (name in EVENTS and value)
        }
        directives = [_directive(["service"], units)] if units else []
        if line.canary:
            directives.append(_directive(["service", "release"], dict.fromkeys(line.canary, "Count")))
        document = {**_metadata(now, *directives), "service": self._owner, "release": release}
        document |= {"source": source, **values}
        if line.failures:
            document |= {"failures": dict(line.failures), "request_id": request_id}
        return document


NOT_CALLED = Outcome(called=False)


def _metadata(now: float, *directives: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a line declare metrics; nothing if there are none."""
    if not directives:
        return {}
    return {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": list(directives)}}


def _directive(dimensions: list[str], units: Mapping[str, str]) -> dict[str, Any]:
    """Return the declaration of metrics with one set of dimensions."""
    metrics = [{"Name": name, "Unit": unit} for name, unit in units.items()]
    return {"Namespace": METRICS_NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics}


def _canary(trace: Trace) -> Iterator[tuple[str, float]]:
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
        outcome = trace.distilled or NOT_CALLED
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
