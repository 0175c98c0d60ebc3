"""Requests that the stand-in logs, for settings with invocation logs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from distilled_router.data.invocation_logs import Selection
from distilled_router.task.task import Task
from labelling.logs import Logs
from local import logged_requests
from local.bedrock import BedrockStandIn
from stacks.settings import load
from tests.engine.system import changed

TEACHER = "us.amazon.nova-pro-v1:0"
TASK = Task.load()


def test_logged_requests_are_read_with_the_settings_that_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    local = load("local")
    with BedrockStandIn() as bedrock:
        clients: dict[str, Any] = {
            "s3": bedrock.s3,
            "bedrock": bedrock.client("bedrock"),
            "bedrock-runtime": bedrock.client("bedrock-runtime"),
        }
        monkeypatch.setattr(bedrock.s3, "create_bucket", lambda **_: {}, raising=False)
        monkeypatch.setattr(logged_requests, "reached", lambda *_: clients)
        told = logged_requests.log(local, {}, Path("environments/local.toml"))
        clients["bedrock-runtime"].converse(
            modelId=TEACHER, messages=[{"role": "user", "content": [{"text": "not logged any more"}]}]
        )
    given = tomllib.loads(told.partition("\n\n")[2])
    dataset = changed(local, {"dataset": {**given, "training": None, "holdout": None}}).dataset
    selection = Selection(task=TASK, metadata=dataset.log_filters, teacher=TEACHER)
    bucket, _, prefix = str(dataset.logs).removeprefix("s3://").partition("/")
    found = Logs(s3=bedrock.s3, bucket=bucket, prefix=prefix, selection=selection).read()
    assert told.startswith(f"{found.records:,} requests are logged.".replace(",", ""))
    assert (found.left_out, all(one.answers for one in found.queries.values())) == ({}, True)
