"""The Lambda's entry point: makes the clients once, then answers."""

from __future__ import annotations

from typing import Any

from botocore.session import get_session

from distilled_router.env import RouterEnv
from distilled_router.task.task import Task
from router.assembly import client_config, make_router
from router.service import Router


def _from_environment() -> Router:
    env = RouterEnv.read()
    # botocore's clients are boto3's; boto3 itself would only take its time to load.
    session, config = get_session(), client_config(env)
    return make_router(
        env,
        Task.load(),
        bedrock=session.create_client("bedrock-runtime", config=config),
        dynamodb=session.create_client("dynamodb", config=config),
    )


# Made while the function initialises; nothing is called over the network yet.
_ROUTER = _from_environment()


def handler(event: object, context: object) -> dict[str, Any]:
    """Route one query. See `Router.handle`."""
    return _ROUTER.handle(event, context)
