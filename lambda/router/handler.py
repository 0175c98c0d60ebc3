"""Entry point of the router's Lambda function."""

from __future__ import annotations

import os
from typing import Any

from distilled_router.env import RouterEnv
from distilled_router.task.task import Task
from router.assembly import connect, head_storage, make_router, services
from router.service import Router


def _from_environment() -> Router:
    env = RouterEnv.read()
    bedrock, dynamodb = services(env, os.environ)
    router = make_router(
        env, Task.load(), bedrock=bedrock, dynamodb=dynamodb, s3=head_storage(env, os.environ)
    )
    connect(bedrock, dynamodb)
    return router


# Created during initialisation.
_ROUTER = _from_environment()


def handler(event: object, context: object) -> dict[str, Any]:
    """Answer one request. See `Router.handle`."""
    return _ROUTER.handle(event, context)
