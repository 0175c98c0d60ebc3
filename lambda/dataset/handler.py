"""Custom resource Dataset: validate training and hold-out files and publish them under their digest.

Each resource publishes one of them (`Publishes`). That of the training file also checks it against the
hold-out set, and publishes only if both are valid. The folder's name is a digest of the content, so published
files are never overwritten with others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client
from distilled_router.aws.custom_resource import Event, answer, answer_event, is_true
from distilled_router.aws.errors import ResourceError, with_retries
from distilled_router.aws.folder_claims import FolderClaim, rolls_back
from distilled_router.aws.objects import Folder
from distilled_router.bedrock.ownership import Claimant
from distilled_router.cost.estimate import Volume
from distilled_router.cost.limit import enforce_limit
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.files import DataFile
from distilled_router.data.findings import WARNINGS
from distilled_router.data.preflight import Needs
from distilled_router.env import ResourceEnv
from distilled_router.task.task import Task

logger = Logger()


@dataclass(frozen=True)
class Services:
    """Clients of the resource."""

    s3: Any
    bedrock: Any


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_event(request, lambda each: handle(each, _services(), Task.load()), is_polled=False)


def _services() -> Services:
    return Services(client("s3"), client("bedrock"))


def handle(
    event: Event, aws: Services, task: Task, retry: Callable[..., Any] = with_retries
) -> dict[str, Any]:
    """Publish the files on Create and Update; on Delete remove them unless they are retained or needed."""
    s3 = aws.s3
    if event.is_delete:
        # Also for an id that CloudFormation invented, because it cancelled a Create: the properties name the
        # folder, and the claims tell who needs it.
        _remove(event, event.properties, s3)
        return answer(str(event.physical_id))
    sources = {
        name.lower(): DataFile.of(name.lower(), event.properties[name], s3, retry)
        for name in ("Training", "Holdout")
        if name in event.properties
    }
    training = sources.get("training")
    method = str(event.properties["Method"])
    report = check_dataset(
        training.rows() if training else None,
        sources["holdout"].rows(),
        task,
        method,
        needs=Needs.read(event.properties["Needs"]) if "Needs" in event.properties else None,
    )
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    volume = Volume(
        queries=report.rows["training"],
        unlabelled=report.unlabelled,
        query_bytes=report.query_bytes["training"],
    )
    enforce_limit(event, volume, task, aws.bedrock)
    logger.info("data set passed", summary=report.summary())
    # A resource of an earlier version publishes both.
    publishes = str(event.properties.get("Publishes", ""))
    published = {name: source for name, source in sources.items() if publishes in {name, ""}}
    _publish(event, list(published.values()), report.warned(), s3)
    if rolls_back(event, _physical_id):
        _remove(event, event.old_properties, s3)
    uri = _physical_id(event.properties)
    return answer(
        uri,
        {
            "TrainingUri": f"{uri}training.jsonl" if "training" in published else "",
            "HoldoutUri": f"{uri}holdout.jsonl" if "holdout" in published else "",
            "Digest": str(event.properties["Digest"]),
            "TrainingRows": str(report.rows["training"]),
            "HoldoutRows": str(report.rows["holdout"]),
            "TrainingSha256": training.sha256 if training else "",
            "HoldoutSha256": sources["holdout"].sha256,
        },
    )


def _folder(properties: Mapping[str, Any]) -> str:
    return f"datasets/{properties['Digest']}/"


def _physical_id(properties: Mapping[str, Any]) -> str:
    return f"s3://{properties['Bucket']}/{_folder(properties)}"


def _claim(event: Event, properties: Mapping[str, Any], s3: Any) -> FolderClaim:
    bucket, claimant = str(properties["Bucket"]), Claimant.of(event)
    return FolderClaim(s3, bucket, _folder(properties), claimant, event.request_id)


def _publish(event: Event, sources: Sequence[DataFile], warnings: Sequence[str], s3: Any) -> None:
    """Claim the folder and write files and warnings. Undo it if CloudFormation no longer waits for them."""
    bucket, folder = str(event.properties["Bucket"]), _folder(event.properties)
    with _claim(event, event.properties, s3).held(event.check_newest, retain=_is_retained(event.properties)):
        for source in sources:
            source.publish(bucket, f"{folder}{source.name}.jsonl")
        Folder(s3, bucket, folder).write(WARNINGS, {"warnings": warnings})


def _remove(event: Event, properties: Mapping[str, Any], s3: Any) -> None:
    """Remove the claim, and the files unless they are retained or somebody else claims them."""
    claim, retain = _claim(event, properties, s3), _is_retained(properties)
    claim.drop(retain=retain)
    if not retain:
        claim.purge()


def _is_retained(properties: Mapping[str, Any]) -> bool:
    return is_true(properties.get("Retain", "true"))
