"""Custom resource Dataset: validates training and hold-out files, then publishes them under their digest.

Nothing is published before everything has passed, so a bad file costs nothing and a good one is never
overwritten: the folder is named by the files' content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from shared.clients import client
from shared.custom_resource import Event, answer, begun, truth
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
    return begun(lambda: handle(request, client("s3"), Task.load()))


def handle(event: Event, s3: Any, task: Task, retry: Callable[..., Any] = with_retries) -> dict[str, Any]:
    """Publish on Create and Update; on Delete remove what was published, unless it is retained."""
    bucket, folder = str(event.properties["Bucket"]), f"datasets/{event.properties['Digest']}/"
    physical_id = f"s3://{bucket}/{folder}"
    if event.is_delete:
        # Another id is one that CloudFormation invented for a create that never answered.
        if event.physical_id == physical_id and not truth(event.properties.get("Retain", "true")):
            purge(s3, bucket, folder)
        return answer(str(event.physical_id))
    training, holdout = (
        Source.of(name, event.properties[name], s3, retry) for name in ("Training", "Holdout")
    )
    report = check_dataset(training.rows(), holdout.rows(), task, str(event.properties["Method"]))
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    logger.info("data set passed", summary=report.summary())
    for source in (training, holdout):
        source.publish(bucket, f"{folder}{source.name.lower()}.jsonl")
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


@dataclass
class Source:
    """One of the two files, where it lies before it is published."""

    name: str
    location: Mapping[str, str]
    s3: Any
    retry: Callable[..., Any]
    etag: str = ""

    @classmethod
    def of(cls, name: str, properties: Mapping[str, str], s3: Any, retry: Callable[..., Any]) -> Source:
        """The file that the resource's properties name; a version only where they do."""
        keys = ("Bucket", "Key", "VersionId")
        return cls(name, {key: properties[key] for key in keys if properties.get(key)}, s3, retry)

    def rows(self) -> Iterator[bytes]:
        """The file's lines. Raises ResourceError where it can't be read."""
        try:
            opened = self.retry(
                lambda: self.s3.get_object(**self.location),
                retryable=lambda error: code(error) in {"AccessDenied", "AllAccessDisabled"},
                seconds=ACCESS_WAIT_SECONDS,
            )
        except ClientError as error:
            raise self._unreadable(error) from error
        self.etag = opened["ETag"]
        yield from lines(opened["Body"].iter_chunks(CHUNK_BYTES))

    def publish(self, bucket: str, key: str) -> None:
        """Copy what was read, and nothing else: a file that changed since is refused. One call, so that no
        reader ever sees a part of it; tags and annotations stay behind, as they would need permissions of
        their own."""
        try:
            self.s3.copy_object(
                CopySource=dict(self.location),
                CopySourceIfMatch=self.etag,
                Bucket=bucket,
                Key=key,
                TaggingDirective="REPLACE",
                AnnotationDirective="EXCLUDE",
            )
        except ClientError as error:
            if code(error) == "PreconditionFailed":
                raise ResourceError(f"{self} changed while it was read. Deploy again.") from error
            raise ResourceError(
                f"{self} can't be published as s3://{bucket}/{key}: {code(error)} {message(error)}"
            ) from error

    def _unreadable(self, error: ClientError) -> ResourceError:
        found = "It does not exist" if is_missing(error) else "It can't be read"
        if code(error) == "AccessDenied":
            # S3 answers so for a missing object, too, unless the caller may list the bucket.
            found = "It can't be read, or does not exist"
        return ResourceError(
            f"{self}: {found} ({code(error)}: {message(error)}). Nothing was published. Check "
            f"dataset.{self.name.lower()} in the environment's settings, and the bucket's policy and key."
        )

    def __str__(self) -> str:
        uri = f"s3://{self.location['Bucket']}/{self.location['Key']}"
        return f"Data set file {self.name.lower()} {uri} (version {self.location.get('VersionId', 'latest')})"
