"""Assemble the router from its two services and its environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger

from distilled_router.env import EnvError, RouterEnv
from distilled_router.task.task import Task
from router.route_cache import RouteCache
from router.service import FIRST, LAST_RESORT, SIDE_BY_SIDE, Router
from router.services import S3, BedrockRuntime, DynamoDb
from router.sources import Models
from router.telemetry import Telemetry
from router.xray import XRay

if TYPE_CHECKING:
    from router.heads import Heads

# The init phase may take 10 s, and a service that does not answer now may do so later.
CONNECT_SECONDS = 1.0


def make_router(env: RouterEnv, task: Task, *, bedrock: Any, dynamodb: Any, s3: Any = None) -> Router:
    """Return a router that asks models of one service and reads the route from another.

    It reads classification heads from the third; without that, it uses none.
    """
    logger = Logger(service=env.owner)
    return Router(
        env,
        task,
        models=Models(bedrock, task, logger, env.quota_requests_per_minute),
        routes=RouteCache(dynamodb, env.table_name, env.owner, env.route_seconds),
        telemetry=Telemetry(env, logger),
        xray=XRay(enabled=env.tracing),
        heads=None if s3 is None else _heads(env, task, s3, logger),
    )


def _heads(env: RouterEnv, task: Task, s3: Any, logger: Logger) -> Heads:
    # Imported here: a router without heads needs no code of theirs.
    from router.heads import Heads

    return Heads(s3, env.head_bucket, task.labels, logger)


def services(
    env: RouterEnv, environment: Mapping[str, str], *, side_by_side: int = SIDE_BY_SIDE
) -> tuple[BedrockRuntime, DynamoDb]:
    """Return Bedrock and DynamoDB, with the variables that Lambda sets.

    Bedrock keeps a connection for each of the queries that run in parallel. Neither retries, because only the
    router knows how much of a budget is left.
    """
    seconds = env.time_budget_ms / 1000
    bedrock = BedrockRuntime.of(
        "bedrock-runtime", "bedrock", environment, seconds=seconds, most_idle=side_by_side
    )
    dynamodb = DynamoDb.of("dynamodb", "dynamodb", environment, seconds=seconds, most_idle=2)
    return bedrock, dynamodb


def head_storage(env: RouterEnv, environment: Mapping[str, str]) -> S3 | None:
    """Return S3 with the bucket of classification heads; None if they are off.

    Raises:
        EnvError: The mode is unknown, or there is no bucket.
    """
    if env.head_mode == "off":
        return None
    if env.head_mode not in (LAST_RESORT, FIRST):
        raise EnvError(
            f"The environment variable HEAD_MODE is {env.head_mode!r}, "
            f"expected off, {LAST_RESORT} or {FIRST}."
        )
    if not env.head_bucket:
        raise EnvError(f"The environment variable HEAD_BUCKET is missing, and HEAD_MODE is {env.head_mode}.")
    # Not imported with the module: see `_heads`.
    from router.heads import LOAD_SECONDS

    return S3.of_bucket(env.head_bucket, environment, seconds=LOAD_SECONDS)


def connect(*found: BedrockRuntime | DynamoDb) -> None:
    """Open a connection to each service, for the first query.

    Called in the init phase, in which Lambda gives a function a whole CPU, however little memory it has
    (Lambda developer guide, "execution environment lifecycle"). What fails here, the first query tries again.
    """
    pool = ThreadPoolExecutor(len(found), thread_name_prefix="connect")
    wait([pool.submit(service.connections.open, CONNECT_SECONDS) for service in found], CONNECT_SECONDS)
    pool.shutdown(wait=False)
