"""The Lambda's entry point: makes the clients once, then answers."""

from __future__ import annotations

import os
from typing import Any

import boto3

from router.assembly import client_config, make_router
from router.service import Router
from router.settings import Settings
from shared.task import Task


def _from_environment() -> Router:
    settings = Settings.from_environment(os.environ)
    config = client_config(settings)
    return make_router(
        settings,
        Task.load(),
        bedrock=boto3.client("bedrock-runtime", config=config),
        dynamodb=boto3.client("dynamodb", config=config),
    )


# Made while the function initialises; nothing is called over the network yet.
_ROUTER = _from_environment()


def handler(event: object, context: object) -> dict[str, Any]:
    """Route one query. See `Router.handle`."""
    return _ROUTER.handle(event, context)
