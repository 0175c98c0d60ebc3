"""Entry point of the router's Lambda function."""

from __future__ import annotations

from typing import Any

from botocore.session import get_session

from distilled_router.env import RouterEnv
from distilled_router.task.task import Task
from router.assembly import client_config, make_router
from router.service import Router


def _from_environment() -> Router:
    env = RouterEnv.read()
    # boto3's clients are botocore's; importing boto3 would only make the cold start longer.
    session, config = get_session(), client_config(env)
    return make_router(
        env,
        Task.load(),
        bedrock=session.create_client("bedrock-runtime", config=config),
        dynamodb=session.create_client("dynamodb", config=config),
    )


# Created during initialisation; makes no network calls.
_ROUTER = _from_environment()


def handler(event: object, context: object) -> dict[str, Any]:
    """Answer one request. See `Router.handle`."""
    return _ROUTER.handle(event, context)
