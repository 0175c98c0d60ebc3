"""Requests to a large model that the Bedrock stand-in logs, as those of a team which routes by it already.

They are for `dataset.source = "invocation_logs"` in the local system, and for tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilled_router.data.conversation import examples
from distilled_router.task.converse import Prompt, request
from distilled_router.task.task import Task
from operate.aws import Aws
from stacks.settings import PROJECT, Settings

BUCKET = "search-team-logs"
_PREFIX = "bedrock"
METADATA = {"service": "search"}
_CALLERS = 8
_ENDPOINTS = {
    "s3": "AWS_ENDPOINT_URL",
    "bedrock": "AWS_ENDPOINT_URL_BEDROCK",
    "bedrock-runtime": "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
}

DATASET: Mapping[str, Any] = {
    "source": "invocation_logs",
    "logs": f"s3://{BUCKET}/{_PREFIX}/",
    "log_filters": METADATA,
    "use_logged_answers": True,
}
"""The settings that read these logs."""


def log(settings: Settings, variables: Mapping[str, str], source: Path) -> str:
    """Log the teacher's answers to the sample rows' queries in the local system; return what to do next.

    Args:
        settings: of the local system.
        variables: which reach it.
        source: the file that its settings were made from.
    """
    clients = reached(settings.region, variables)
    task = Task.load(settings.task_folder)
    with (PROJECT / "data" / "training.jsonl").open(encoding="utf-8") as rows:
        queries = [row.query for row in examples(rows, task)]
    with logging(clients):
        ask(clients["bedrock-runtime"], queries, task, str(settings.distillation.teacher))
    lines = [f"{name} = {_toml(value)}" for name, value in DATASET.items()]
    return "\n".join(
        [
            f"{len(queries)} requests are logged. In {source}, put this",
            "in the place of source, training and holdout of [dataset], and run `make local`:",
            "",
            *lines,
        ]
    )


def reached(region: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return boto3 clients of the local system, by service."""
    session = Aws(region, variables).session
    return {
        service: session.client(  # type: ignore[call-overload]  # one of three names
            service, endpoint_url=variables[name], verify=variables["AWS_CA_BUNDLE"]
        )
        for service, name in _ENDPOINTS.items()
    }


@contextmanager
def logging(clients: Mapping[str, Any]) -> Iterator[None]:
    """Log all calls of the account to the bucket during a block.

    `clients` are boto3 clients of `s3` and `bedrock`.
    """
    clients["s3"].create_bucket(Bucket=BUCKET)
    target = {"bucketName": BUCKET, "keyPrefix": _PREFIX}
    clients["bedrock"].put_model_invocation_logging_configuration(loggingConfig={"s3Config": target})
    try:
        yield
    finally:
        clients["bedrock"].delete_model_invocation_logging_configuration()


def ask(runtime: Any, queries: Sequence[str], task: Task, model: str) -> None:
    """Ask a model each query with the task's full prompt, as the search does."""
    prompt = Prompt.base(task)
    with ThreadPoolExecutor(_CALLERS) as pool:
        calls = [
            pool.submit(
                runtime.converse, modelId=model, **request(prompt, query), requestMetadata=dict(METADATA)
            )
            for query in queries
        ]
    for call in calls:
        call.result()


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    return json.dumps(value)
