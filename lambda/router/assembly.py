"""Puts the router together around its two clients."""

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
    """A router that asks through a bedrock-runtime client and reads its route through a dynamodb client."""
    logger = Logger(service=env.owner)
    return Router(
        env,
        task,
        models=Models(bedrock, task, logger),
        routes=RouteCache(dynamodb, env.table_name, env.route_seconds),
        telemetry=Telemetry(env, logger),
        xray=XRay(enabled=env.tracing),
    )


def client_config(env: RouterEnv) -> Config:
    """How those clients wait and retry.

    A request's budget bounds every wait already; these timeouts end the calls that it gave up. botocore
    retries nothing, because its pauses know no budget.
    """
    seconds = env.time_budget_ms / 1000
    return Config(
        connect_timeout=seconds / 2,
        read_timeout=seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
        # A connection for each query of a batch that is asked at a time; botocore keeps 10.
        max_pool_connections=SIDE_BY_SIDE,
    )
