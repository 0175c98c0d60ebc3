"""Custom resource Dataset: validates training and hold-out files, then publishes them under their digest.

Nothing is published before everything has passed, so a bad file costs nothing and a good one is never
overwritten: the folder is named by the files' content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from shared.clients import client
from shared.custom_resource import Event, answer, shortened, truth
from shared.dataset_rules import check_dataset, lines
from shared.errors import ResourceError, code, is_missing, message, with_retries
from shared.storage import purge
from shared.task import Task

logger = Logger()

# The role's policy names the file, and IAM may need a moment to know it.
ACCESS_WAIT_SECONDS = 60.0
CHUNK_BYTES = 65_536


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    try:
        return handle(request, client("s3"), Task.load())
    except ResourceError as error:
        raise ResourceError(shortened(str(error))) from error


def handle(event: Event, s3: Any, task: Task) -> dict[str, Any]:
    """Publish on Create and Update; on Delete remove what was published, unless it is retained."""
    bucket, folder = str(event.properties["Bucket"]), _folder(event.properties)
    physical_id = f"s3://{bucket}/{folder}"
    if event.is_delete:
        # Another id is one that CloudFormation invented for a create that never answered.
        if event.physical_id == physical_id and not truth(event.properties.get("Retain", "true")):
            purge(s3, bucket, folder)
        return answer(str(event.physical_id))
    sources = {name: event.properties[name] for name in ("Training", "Holdout")}
    for name, source in sources.items():
        _check_readable(s3, name, source)
    report = check_dataset(
        _read(s3, sources["Training"]), _read(s3, sources["Holdout"]), task, str(event.properties["Method"])
    )
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    logger.info("data set passed", summary=report.summary())
    for name, source in sources.items():
        s3.copy(_source(source), bucket, f"{folder}{name.lower()}.jsonl", SourceClient=s3)
    return answer(
        physical_id,
        {
            "TrainingUri": f"{physical_id}training.jsonl",
            "HoldoutUri": f"{physical_id}holdout.jsonl",
            "Digest": str(event.properties["Digest"]),
            "TrainingRows": str(report.rows["training"]),
            "HoldoutRows": str(report.rows["holdout"]),
        },
    )


def _folder(properties: Mapping[str, Any]) -> str:
    return f"datasets/{properties['Digest']}/"


def _source(source: Mapping[str, str]) -> dict[str, str]:
    known = {"Bucket": source["Bucket"], "Key": source["Key"]}
    return {**known, "VersionId": source["VersionId"]} if source.get("VersionId") else known


def _check_readable(s3: Any, name: str, source: Mapping[str, str]) -> None:
    uri = f"s3://{source['Bucket']}/{source['Key']}"
    try:
        with_retries(
            lambda: s3.head_object(**_source(source)),
            retryable=lambda error: code(error) in {"403", "AccessDenied", "AllAccessDisabled"},
            seconds=ACCESS_WAIT_SECONDS,
        )
    except ClientError as error:
        advice = (
            "It does not exist."
            if is_missing(error)
            else f"It can't be read: {code(error)} {message(error)}."
        )
        raise ResourceError(
            f"Data set file {name.lower()} {uri} (version {source.get('VersionId', 'latest')}): {advice} Nothing was "
            f"published. Check dataset.{name.lower()} in the environment's settings, and the bucket's policy and key."
        ) from error


def _read(s3: Any, source: Mapping[str, str]) -> Iterator[bytes]:
    body = s3.get_object(**_source(source))["Body"]
    yield from lines(body.iter_chunks(CHUNK_BYTES))
