"""The Lambda's entry point: makes the clients once, then answers."""

from __future__ import annotations

import os
from typing import Any

from botocore.session import get_session

from distilled_router.task.task import Task
from router.assembly import client_config, make_router
from router.service import Router
from router.settings import Settings


def _from_environment() -> Router:
    settings = Settings.from_environment(os.environ)
    # botocore's clients are boto3's; boto3 itself would only take its time to load.
    session, config = get_session(), client_config(settings)
    return make_router(
        settings,
        Task.load(),
        bedrock=session.create_client("bedrock-runtime", config=config),
        dynamodb=session.create_client("dynamodb", config=config),
    )


# Made while the function initialises; nothing is called over the network yet.
_ROUTER = _from_environment()


def handler(event: object, context: object) -> dict[str, Any]:
    """Route one query. See `Router.handle`."""
    return _ROUTER.handle(event, context)
