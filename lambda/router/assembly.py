"""Puts the router together around its two clients."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger
from botocore.config import Config

from router.route_cache import RouteCache
from router.service import Router
from router.settings import Settings
from router.sources import Models
from router.telemetry import Telemetry
from shared.task import Task


def make_router(settings: Settings, task: Task, *, bedrock: Any, dynamodb: Any) -> Router:
    """A router that asks through a bedrock-runtime client and reads its route through a dynamodb client."""
    logger = Logger(service=settings.name)
    return Router(
        settings,
        task,
        models=Models(bedrock, task, logger),
        routes=RouteCache(dynamodb, settings.table_name, settings.route_seconds),
        telemetry=Telemetry(settings, logger),
    )


def client_config(settings: Settings) -> Config:
    """How those clients wait and retry.

    A request's budget bounds every wait already; these timeouts end the calls that it gave up. botocore
    retries nothing, because its pauses know no budget.
    """
    return Config(
        connect_timeout=settings.time_budget / 2,
        read_timeout=settings.time_budget,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
        # Beyond that a connection is made for a call and thrown away: a batch asks 16 at once.
        max_pool_connections=128,
    )
