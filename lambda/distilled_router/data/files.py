"""Files of a data set where they lie before they are published: in a bucket of this account or another's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code, is_missing, message, with_retries
from distilled_router.data.dataset_rules import lines

# The role's policy names the file, and IAM may need a moment to know it.
ACCESS_WAIT_SECONDS = 60.0
CHUNK_BYTES = 65_536
_DENIED = frozenset({"AccessDenied", "AllAccessDisabled"})
_QUERY_FILES = (".txt", ".jsonl")

Retry = Callable[..., Any]


@dataclass
class DataFile:
    """One file. `name` is its key in the settings, such as `training`; `location` names Bucket, Key and,
    where they do, VersionId."""

    name: str
    location: Mapping[str, str]
    s3: Any
    retry: Retry = with_retries
    etag: str = field(default="", init=False)

    @classmethod
    def of(cls, name: str, properties: Mapping[str, str], s3: Any, retry: Retry = with_retries) -> DataFile:
        """The file that a resource's properties name."""
        keys = ("Bucket", "Key", "VersionId")
        return cls(name, {key: properties[key] for key in keys if properties.get(key)}, s3, retry)

    def rows(self) -> Iterator[bytes]:
        """The file's lines. Raises ResourceError where it can't be read."""
        check_region(self.s3, self.location["Bucket"], str(self))
        try:
            opened = self.retry(
                lambda: self.s3.get_object(**self.location),
                retryable=lambda error: code(error) in _DENIED,
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
            f"dataset.{self.name} in the environment's settings, and the bucket's policy and key."
        )

    def __str__(self) -> str:
        uri = f"s3://{self.location['Bucket']}/{self.location['Key']}"
        return f"Data set file {self.name} {uri} (version {self.location.get('VersionId', 'latest')})"


def files_of(
    name: str, properties: Mapping[str, str], s3: Any, retry: Retry = with_retries
) -> Sequence[DataFile]:
    """The one file that properties name by Key, or all files of the folder that they name by Prefix.

    A folder's content is known by the `Content` that the settings give it: 16 hex digits over the names and
    ETags of its files. Raises ResourceError where they are others, so that nothing is labelled under the
    digest of something else.
    """
    if "Prefix" not in properties:
        return [DataFile.of(name, properties, s3, retry)]
    bucket, prefix = properties["Bucket"], properties["Prefix"]
    folder = f"Data set folder {name} s3://{bucket}/{prefix}"
    check_region(s3, bucket, folder)
    try:
        listed = retry(
            lambda: _listed(s3, bucket, prefix),
            retryable=lambda error: code(error) in _DENIED,
            seconds=ACCESS_WAIT_SECONDS,
        )
    except ClientError as error:
        raise ResourceError(
            f"{folder} can't be listed ({code(error)}: {message(error)}). Nothing was published. Check "
            f"dataset.{name} in the environment's settings, and the bucket's policy."
        ) from error
    if not listed:
        raise ResourceError(f"{folder} holds no files ending in {' or '.join(_QUERY_FILES)}.")
    content = sha256(repr(sorted(listed.items())).encode()).hexdigest()[:16]
    if content != properties["Content"]:
        raise ResourceError(
            f"{folder} holds other files than dataset.{name}_version = {properties['Content']!r} stands for. "
            f"Nothing was published. Its {len(listed)} files are {content!r} now: put that into the "
            "settings to label them."
        )
    return [DataFile.of(name, {"Bucket": bucket, "Key": key}, s3, retry) for key in sorted(listed)]


def _listed(s3: Any, bucket: str, prefix: str) -> dict[str, str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [item for page in pages for item in page.get("Contents", ())]
    return {item["Key"]: item["ETag"] for item in found if item["Key"].endswith(_QUERY_FILES)}


def check_region(s3: Any, bucket: str, what: str) -> None:
    """Raise ResourceError for a bucket of another Region, as far as S3 tells: Bedrock reads only its own, and
    what is copied from elsewhere is paid for on the way."""
    try:
        answered = s3.head_bucket(Bucket=bucket)
        found = answered.get("BucketRegion")
    except ClientError as error:
        # Even a caller who may not look is told where the bucket is.
        found = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    own = os.environ.get("AWS_REGION")
    if found and own and found != own:
        raise ResourceError(
            f"{what} is in {found}, and this stack in {own}. Nothing was published. "
            f"Copy it to a bucket in {own}."
        )
