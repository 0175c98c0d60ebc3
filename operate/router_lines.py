"""What the router's own code writes for a query: bytes of log, and series of metrics, which AWS bills."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any
from uuid import uuid4

from aws_lambda_powertools import Logger

from cdk_distilled_router.common.access_log import ACCESS_LOG
from distilled_router.cost.prices import PriceError, Prices
from distilled_router.env import RouterEnv
from distilled_router.task.task import Task
from router.first_sights import Sight
from router.sources import DISTILLED, Outcome
from router.telemetry import Telemetry, Trace
from stacks.settings import Settings

type Series = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name, and the names and values of its dimensions."""

DIGEST, REQUEST_ID = "0" * 12, "0" * 36
DEPLOYMENT = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/0000"
# A query and its numbers as in the sample task, with as many digits as clocks give.
QUERY, LATENCY_MS, MODEL_MS, TOKENS_IN, TOKENS_OUT = "red car driving at night", 416.3791, 412.0, 41, 6
# Lambda's own lines about an invocation, as text (Lambda developer guide, "log formats").
PLATFORM = (
    f"START RequestId: {REQUEST_ID} Version: 12\n",
    f"END RequestId: {REQUEST_ID}\n",
    f"REPORT RequestId: {REQUEST_ID}\tDuration: 416.38 ms\tBilled Duration: 417 ms\tMemory Size: 1024 MB\t"
    "Max Memory Used: 90 MB\t\n",
)
TRACED = "XRAY TraceId: 1-00000000-000000000000000000000000\tSegmentId: 0000000000000000\tSampled: true\t\n"
# Values of the API's access log.
ACCESS = {
    "requestId": "0" * 16,
    "time": "30/Nov/2026:12:00:00 +0000",
    "caller": "arn:aws:sts::000000000000:assumed-role/search-backend-role/search-backend-session",
    "ip": "203.0.113.100",
    "route": "POST /route",
    "status": "200",
    "latency": "425",
    "error": "-",
}


@dataclass(frozen=True)
class Written:
    """The series of the metrics in lines of a log, and the bytes of these lines."""

    series: frozenset[Series]
    size: int


def query(settings: Settings, *, in_rollout: bool = False) -> Written:
    """Return what the router writes for a query that the student answers."""
    trace = Trace(
        QUERY,
        Task.load(settings.task_folder).static_weights,
        LATENCY_MS,
        release=DIGEST,
        source=DISTILLED,
        distilled=Outcome(DEPLOYMENT, None, "", "", True, MODEL_MS, TOKENS_IN, TOKENS_OUT),
        has_head=not settings.head.is_off,
        in_rollout=in_rollout,
        sight=Sight.FIRST if in_rollout else None,
    )
    return _written(settings, trace)


def invocation(settings: Settings) -> int:
    """Return the bytes of Lambda's own lines about an invocation."""
    return len("".join(PLATFORM)) + (len(TRACED) if settings.router.tracing else 0)


def access() -> int:
    """Return the bytes of a line of the API's access log."""
    return len(json.dumps({name: ACCESS[name] for name in ACCESS_LOG}))


def _written(settings: Settings, trace: Trace) -> Written:
    with redirect_stdout(StringIO()) as output:
        # A logger keeps the stream of its first use.
        Telemetry(_env(settings), Logger(service=f"{settings.owner}-{uuid4()}")).finished([trace], REQUEST_ID)
    text = output.getvalue()
    found = (json.loads(line) for line in text.splitlines())
    return Written(frozenset(one for line in found for one in series(line)), len(text.encode()))


def series(line: Mapping[str, Any]) -> Iterator[Series]:
    """Yield the series of a log line in CloudWatch's embedded metric format; none of other lines."""
    for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
        for metric in directive["Metrics"]:
            for names in directive["Dimensions"]:
                yield metric["Name"], tuple((name, line[name]) for name in sorted(names))


def _env(settings: Settings) -> RouterEnv:
    values = {name: value for name, value in settings.router if name in RouterEnv.names()}
    student, base = settings.distillation.student, settings.router.base_model
    return RouterEnv(
        owner=settings.owner,
        table_name="",
        base_prices=_prices(base),
        student_prices=_prices(student),
        head_mode=settings.head.mode,
        **values,
    )


def _prices(model: str) -> str:
    try:
        rate = Prices.load().rate(model)
    except PriceError:
        return ""
    return f"{rate.input} {rate.output}"
