"""A router with test doubles, and its output."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger

from distilled_router.task.task import Task
from router.heads import Heads
from router.route_cache import RouteCache
from router.service import Router
from router.sources import Models
from router.telemetry import Telemetry
from router.xray import XRay
from tests.unit.router.doubles import BedrockDouble, Stopwatch, TableDouble, WallClock, router_env
from tests.unit.router.object_store import BUCKET, ObjectStore

Capture = pytest.CaptureFixture[str]


def http_event(path: str, body: object, user: str) -> dict[str, Any]:
    """Return the HTTP API's event for a request of an IAM user or of a role's session."""
    return {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "requestContext": {"http": {"method": "POST"}, "authorizer": {"iam": {"userArn": user}}},
        "body": json.dumps(body),
    }


@dataclass
class Bench:
    """A router, its doubles and its output."""

    router: Router
    bedrock: BedrockDouble
    table: TableDouble
    clock: WallClock
    stopwatch: Stopwatch
    capture: Capture
    lines: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, query: object = "dog barking", user: str = "") -> dict[str, Any]:
        """Invoke the router directly, or as a user of the HTTP API."""
        if not user:
            return self.router.handle({"query": query})
        answered = self.router.handle(http_event("/route", {"query": query}, user))
        answer: dict[str, Any] = json.loads(answered["body"])
        return answer

    def ask_all(self, queries: Sequence[object], user: str = "") -> list[dict[str, Any]]:
        """Send a batch, by direct invocation or as a user of the HTTP API."""
        body = {"queries": list(queries)}
        event = http_event("/routes", body, user) if user else body
        answer = self.router.handle(event)
        answers: list[dict[str, Any]] = (json.loads(answer["body"]) if user else answer)["answers"]
        return answers

    def output(self) -> list[dict[str, Any]]:
        """Return all lines printed so far."""
        self.lines += [json.loads(line) for line in self.capture.readouterr().out.splitlines()]
        return self.lines

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of all queries so far, and of models that did not answer them."""
        return [line for line in self.output() if "release" in line and "level" not in line]

    def route_errors(self) -> list[int]:
        """Return, for each read of the route since the first that failed, whether it failed: 0 or 1."""
        return [line["RouteErrors"] for line in self.output() if "RouteErrors" in line]

    def logs(self) -> list[dict[str, Any]]:
        """Return all log lines so far."""
        return [line for line in self.output() if "level" in line]


@pytest.fixture(scope="session")
def task() -> Task:
    """Return the project's task."""
    return Task.load(Path(__file__).parents[3] / "task")


@pytest.fixture
def bench(task: Task, capsys: Capture) -> Callable[..., Bench]:
    """Return a factory of routers: `bench(bedrock, table, time_budget_ms=200, ...)`.

    With a `store`, the router loads classification heads from it.
    """

    def make(
        bedrock: BedrockDouble, table: TableDouble, store: ObjectStore | None = None, **variables: Any
    ) -> Bench:
        env, clock = router_env(**variables), WallClock()
        stopwatch = Stopwatch()
        bedrock.wait = table.wait = stopwatch.wait
        # A logger keeps the stream of its first use, and pytest has another one in each test.
        logger = Logger(service=f"{env.owner}-{uuid4()}")
        router = Router(
            env,
            task,
            models=Models(bedrock, task, logger, env.quota_requests_per_minute, pause=lambda seconds: None),
            routes=RouteCache(
                table,
                env.table_name,
                env.owner,
                env.route_seconds,
                jitter=lambda low, high: high,
                pause=lambda seconds: None,
            ),
            telemetry=Telemetry(env, logger, now=clock),
            xray=XRay(enabled=env.tracing),
            heads=Heads(store.client(), BUCKET, task.labels, logger) if store else None,
            now=clock,
            clock=stopwatch,
        )
        return Bench(router, bedrock, table, clock, stopwatch, capsys)

    return make
