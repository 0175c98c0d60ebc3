"""The boto3 clients of every function, created on first use and kept for the life of the process."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
from botocore.config import Config

# `standard` retries throttling and 5xx with backoff and jitter. Control-plane calls are few and never
# urgent, so five tries cost nothing; the function's timeout is the upper limit.
CONFIG = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=20)


@cache
def client(service: str) -> Any:
    """Return the process's client of an AWS service, e.g. `client("bedrock")`."""
    return boto3.client(service, config=CONFIG)  # type: ignore[call-overload]  # any service's name


@cache
def table(name: str) -> Any:
    """Return the process's DynamoDB table resource of that name."""
    return boto3.resource("dynamodb", config=CONFIG).Table(name)
