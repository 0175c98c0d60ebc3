"""Assemble the router from its two clients and its environment variables."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from botocore.config import Config

from distilled_router.env import RouterEnv
from distilled_router.task.task import Task
from router.route_cache import RouteCache
from router.service import SIDE_BY_SIDE, Router
from router.sources import Models
from router.telemetry import Telemetry
from router.xray import XRay


def make_router(env: RouterEnv, task: Task, *, bedrock: Any, dynamodb: Any) -> Router:
    """Return a router that uses a bedrock-runtime client for models and a dynamodb client for the route."""
    logger = Logger(service=env.owner)
    return Router(
        env,
        task,
        models=Models(bedrock, task, logger),
        routes=RouteCache(dynamodb, env.table_name, env.owner, env.route_seconds),
        telemetry=Telemetry(env, logger),
        xray=XRay(enabled=env.tracing),
    )


def client_config(env: RouterEnv) -> Config:
    """Return the clients' timeouts and retries.

    A request's time budget already bounds every wait. These timeouts end the calls that the request no longer
    waits for. botocore must not retry, because its pauses ignore the budget.
    """
    seconds = env.time_budget_ms / 1000
    return Config(
        connect_timeout=seconds / 2,
        read_timeout=seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
        # One connection for each query of a batch that runs in parallel; botocore's default is 10.
        max_pool_connections=SIDE_BY_SIDE,
    )
