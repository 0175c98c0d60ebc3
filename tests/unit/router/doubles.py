"""Test doubles of the router's two services and of its clocks, in process and without delays.

Real errors, timeouts and connections are tested against the Bedrock stand-in, in test_router_on_stand_in.py.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from boto3.dynamodb.types import TypeSerializer
from botocore.exceptions import ClientError, ReadTimeoutError

from distilled_router.env import RouterEnv
from distilled_router.release.route import Route

BASE_MODEL = "us.amazon.nova-micro-v1:0"


def router_env(**changes: Any) -> RouterEnv:
    """Return the router's variables, with the numbers of environments/prod.toml and the largest batch.

    Only the time budgets are larger, so that a busy machine has the time that it needs.
    """
    values: dict[str, Any] = {
        "owner": "video-router-test",
        "table_name": "releases",
        "base_model": BASE_MODEL,
        "base_prices": "",
        "student_prices": "",
        "time_budget_ms": 60_000,
        "batch_time_budget_ms": 60_000,
        "batch_queries": 100,
        "quota_requests_per_minute": 2000,
        "memory_mb": 1024,
        "cache_entries": 2000,
        "cache_seconds": 300,
        "route_seconds": 10,
        "log_queries": False,
        "tracing": False,
    }
    return RouterEnv(**{**values, **changes})


def variables(bedrock: str, ca_bundle: str) -> dict[str, str]:
    """Return the variables that Lambda sets, with Bedrock at this URL and no table."""
    return {
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_SESSION_TOKEN": "test",
        "AWS_CA_BUNDLE": ca_bundle,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        # Port 9, discard: connections are refused at once.
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9",
    }


def client_error(code: str, status: int = 400, message: str = "said by a double") -> ClientError:
    """Return an error as botocore raises it."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "Converse")


def reply(text: str | None, latency_ms: int = 300) -> dict[str, Any]:
    """Return a Converse response with this text."""
    content = [] if text is None else [{"text": text}]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 40, "outputTokens": 11, "totalTokens": 51},
        "metrics": {"latencyMs": latency_ms},
    }


class Stopwatch:
    """A monotonic clock that stands still until a double lets time pass.

    Each call runs on a thread of its own, for which the router waits in real time. Budgets therefore have
    minutes here, in which any machine starts a thread.
    """

    def __init__(self) -> None:
        """Start at 0, for one thread at a time."""
        self.time, self._passing = 0.0, 0.0
        self._step: threading.Barrier | None = None

    def __call__(self) -> float:
        """Return the seconds."""
        return self.time

    def in_step(self, threads: int) -> None:
        """Let time pass once for so many threads, when each of them waits for the same seconds."""
        self._step = threading.Barrier(threads, self._pass)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._passing = seconds
        if self._step:
            self._step.wait(60)
        else:
            self._pass()

    def _pass(self) -> None:
        self.time += self._passing


class _Double:
    """A service whose calls end with the seconds that they are given, as those of the router's clients do.

    It hangs by `wait`: in real time, unless that is a stopwatch's.
    """

    def __init__(self) -> None:
        self.wait: Callable[[float], None] = time.sleep
        self._given = threading.local()

    def within(self, seconds: float) -> Self:
        """Return the same service, for a call of this thread within so many seconds."""
        self._given.seconds = seconds
        return self

    def hang(self, how: float | threading.Event) -> None:
        """Let seconds pass, or wait for an event, whatever the call is given: as a look-up of a name may."""
        if isinstance(how, threading.Event):
            assert how.wait(60)
            return
        given: float = getattr(self._given, "seconds", math.inf)
        self.wait(min(how, given))
        if how > given:
            raise ReadTimeoutError(endpoint_url="https://double")


class BedrockDouble(_Double):
    """Stands in for `BedrockRuntime` with a prepared reply for each model.

    A reply is a text, None for an answer without content, an exception to raise, or for how long to hang:
    seconds or an event. A list is used item by item, and its last item then for ever.
    """

    def __init__(self, **models: Any) -> None:
        super().__init__()
        self.says: dict[str, Any] = models
        self.calls: list[dict[str, Any]] = []

    def converse(self, **request: Any) -> dict[str, Any]:
        """Return the model's next reply."""
        self.calls.append(request)
        says = self.says[request["modelId"]]
        if isinstance(says, list):
            says = says.pop(0) if len(says) > 1 else says[0]
        if isinstance(says, Exception):
            raise says
        if isinstance(says, float | threading.Event):
            self.hang(says)
            says = "25 25 25 25"
        return reply(says)

    def asked(self, model: str) -> int:
        """Return how often a model was called."""
        return sum(call["modelId"] == model for call in self.calls)


class TableDouble(_Double):
    """Stands in for `DynamoDb`, with one item.

    `fails` is an exception to raise, or for how long to hang: seconds or an event. A list is used item by
    item.
    """

    def __init__(self, route: Route | dict[str, Any] | None = None) -> None:
        super().__init__()
        self.item: dict[str, Any] | None = route.to_item() if isinstance(route, Route) else route
        self.fails: Any = None
        self.reads: list[dict[str, Any]] = []

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return the item as DynamoDB encodes it."""
        self.reads.append(request)
        fails = self.fails.pop(0) if isinstance(self.fails, list) else self.fails
        if isinstance(fails, Exception):
            raise fails
        if fails:
            self.hang(fails)
        if self.item is None:
            return {}
        serialize = TypeSerializer().serialize
        return {"Item": {name: serialize(value) for name, value in self.item.items()}}


@dataclass
class WallClock:
    """A wall clock that the test sets."""

    time: float = 1_800_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.time


@dataclass
class ContextDouble:
    """A Lambda context: its request id, and the remaining milliseconds."""

    aws_request_id: str = "request-1"
    left: int = 100_000
    get_remaining_time_in_millis: Callable[[], int] = field(init=False)

    def __post_init__(self) -> None:
        self.get_remaining_time_in_millis = lambda: self.left
