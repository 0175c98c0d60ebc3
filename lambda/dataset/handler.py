"""Custom resource Dataset: validate training and hold-out files and publish them under their digest.

Files are published only if all are valid. The folder's name is a digest of their content, so published files
are never overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client
from distilled_router.aws.custom_resource import Event, answer, answer_event, is_true
from distilled_router.aws.errors import ResourceError, with_retries
from distilled_router.aws.storage import purge
from distilled_router.cost import estimate
from distilled_router.data.dataset_rules import ROWS, Report, check_dataset
from distilled_router.data.files import DataFile
from distilled_router.env import ResourceEnv
from distilled_router.task.task import Task

logger = Logger()


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_event(request, lambda: handle(request, client("s3"), Task.load()))


def handle(event: Event, s3: Any, task: Task, retry: Callable[..., Any] = with_retries) -> dict[str, Any]:
    """Publish the files on Create and Update; on Delete remove them unless they are retained."""
    bucket, folder = str(event.properties["Bucket"]), f"datasets/{event.properties['Digest']}/"
    physical_id = f"s3://{bucket}/{folder}"
    if event.is_delete:
        # CloudFormation generates an id for a resource whose create never answered.
        if event.physical_id == physical_id and not is_true(event.properties.get("Retain", "true")):
            purge(s3, bucket, folder)
        return answer(str(event.physical_id))
    sources = {
        name.lower(): DataFile.of(name.lower(), event.properties[name], s3, retry)
        for name in ("Training", "Holdout")
        if name in event.properties
    }
    training = sources.get("training")
    method = str(event.properties["Method"])
    report = check_dataset(training.rows() if training else None, sources["holdout"].rows(), task, method)
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    estimate.enforce_limit(event, _volume(report, event.properties), task)
    logger.info("data set passed", summary=report.summary())
    for source in sources.values():
        source.publish(bucket, f"{folder}{source.name}.jsonl")
    return answer(
        physical_id,
        {
            "TrainingUri": f"{physical_id}training.jsonl" if training else "",
            "HoldoutUri": f"{physical_id}holdout.jsonl",
            "Digest": str(event.properties["Digest"]),
            "TrainingRows": str(report.rows["training"]),
            "HoldoutRows": str(report.rows["holdout"]),
        },
    )


def _volume(report: Report, properties: Mapping[str, Any]) -> estimate.Volume:
    """Return the volume of training data. With invocation logs it is unknown: assume a job's maximum."""
    if "Training" in properties:
        return estimate.Volume(
            queries=report.rows["training"],
            unlabelled=report.unlabelled,
            query_bytes=report.query_bytes["training"],
        )
    most = ROWS[str(properties["Method"])][1]
    answered = is_true(properties.get("UseLoggedAnswers", "false"))
    return estimate.Volume(queries=most, unlabelled=0 if answered else most)
