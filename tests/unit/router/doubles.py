"""Test doubles of the router's two services and of its clock, in process and without delays.

Real errors, timeouts and connections are tested against the Bedrock stand-in, in test_router_on_stand_in.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from boto3.dynamodb.types import TypeSerializer
from botocore.exceptions import ClientError

from distilled_router.env import RouterEnv
from distilled_router.release.route import Route

BASE_MODEL = "us.amazon.nova-micro-v1:0"


def router_env(**changes: Any) -> RouterEnv:
    """Return the router's variables, with the numbers of environments/prod.toml and the largest batch."""
    values: dict[str, Any] = {
        "owner": "video-router-test",
        "table_name": "releases",
        "base_model": BASE_MODEL,
        "base_prices": "",
        "student_prices": "",
        "time_budget_ms": 1500,
        "batch_time_budget_ms": 10_000,
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


class BedrockDouble:
    """Stands in for `BedrockRuntime` with a prepared reply for each model.

    A reply is a text, None for an answer without content, an exception to raise, or seconds to hang. A list
    is used item by item, and its last item then for ever.
    """

    def __init__(self, **models: Any) -> None:
        self.says: dict[str, Any] = models
        self.calls: list[dict[str, Any]] = []

    def within(self, seconds: float) -> Self:
        """Return the same service: its calls take as long as they take."""
        return self

    def converse(self, **request: Any) -> dict[str, Any]:
        """Return the model's next reply."""
        self.calls.append(request)
        says = self.says[request["modelId"]]
        if isinstance(says, list):
            says = says.pop(0) if len(says) > 1 else says[0]
        if isinstance(says, Exception):
            raise says
        if isinstance(says, float):
            time.sleep(says)
            says = "25 25 25 25"
        return reply(says)

    def asked(self, model: str) -> int:
        """Return how often a model was called."""
        return sum(call["modelId"] == model for call in self.calls)


class TableDouble:
    """Stands in for `DynamoDb`, with one item.

    `fails` is an exception to raise, or seconds to hang; a list is used item by item.
    """

    def __init__(self, route: Route | dict[str, Any] | None = None) -> None:
        self.item: dict[str, Any] | None = route.to_item() if isinstance(route, Route) else route
        self.fails: Any = None
        self.reads: list[dict[str, Any]] = []

    def within(self, seconds: float) -> Self:
        """Return the same service."""
        return self

    def get_item(self, **request: Any) -> dict[str, Any]:
        """Return the item as DynamoDB encodes it."""
        self.reads.append(request)
        fails = self.fails.pop(0) if isinstance(self.fails, list) else self.fails
        if isinstance(fails, Exception):
            raise fails
        if fails:
            time.sleep(fails)
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
    left: int = 10_000
    get_remaining_time_in_millis: Callable[[], int] = field(init=False)

    def __post_init__(self) -> None:
        self.get_remaining_time_in_millis = lambda: self.left
