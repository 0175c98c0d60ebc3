"""Read and publish the files of a data set, from a bucket of this or another account."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code, is_missing, message, with_retries
from distilled_router.data.line_rules import Mending, lines
from distilled_router.data.query_rules import KINDS, kinds

SAMPLES = "samples.jsonl"
"""What the teacher's samples say of each training query: a classification head learns where they differ."""

# The role's policy names the file, and IAM is eventually consistent.
ACCESS_WAIT_SECONDS = 60.0
CHUNK_BYTES = 65_536
# The functions have 1 GB of memory or more, and hold the content twice.
MOST_MENDED_BYTES = 200_000_000
DENIED = frozenset({"AccessDenied", "AllAccessDisabled"})

Retry = Callable[..., Any]


@dataclass
class DataFile:
    """One file of a data set.

    Attributes:
        name: its key in the settings, such as `training`.
        location: Bucket, Key and, if the settings name one, VersionId.
        s3: an S3 client.
        retry: repeats a call, see `with_retries`.
        etag: of what was read.
        sha256: of what is published.
        is_mended: whether the file was read without a byte order mark or CRLF, and is published so.
    """

    name: str
    location: Mapping[str, str]
    s3: Any
    retry: Retry = with_retries
    etag: str = field(default="", init=False)
    sha256: str = field(default="", init=False)
    is_mended: bool = field(default=False, init=False)

    @classmethod
    def of(cls, name: str, properties: Mapping[str, str], s3: Any, retry: Retry = with_retries) -> DataFile:
        """Return the file that a custom resource's properties name."""
        keys = ("Bucket", "Key", "VersionId")
        return cls(name, {key: properties[key] for key in keys if properties.get(key)}, s3, retry)

    def rows(self) -> Iterator[bytes]:
        """Yield the file's lines. Raises ResourceError if it can't be read."""
        check_region(self.s3, self.location["Bucket"], str(self))
        try:
            opened = self.retry(
                lambda: self.s3.get_object(**self.location),
                retryable=lambda error: code(error) in DENIED,
                seconds=ACCESS_WAIT_SECONDS,
            )
        except ClientError as error:
            raise self._unreadable(error) from error
        self.etag = opened["ETag"]
        found, mending, bytes_left_out = sha256(), Mending(), 0

        def chunks() -> Iterator[bytes]:
            nonlocal bytes_left_out
            for chunk in opened["Body"].iter_chunks(CHUNK_BYTES):
                mended = mending.mend(chunk)
                found.update(mended)
                bytes_left_out += len(chunk) - len(mended)
                yield chunk
            rest = mending.mend(b"", is_last=True)
            found.update(rest)
            bytes_left_out -= len(rest)

        yield from lines(chunks())
        self.sha256, self.is_mended = found.hexdigest(), bytes_left_out > 0

    def publish(self, bucket: str, key: str) -> None:
        """Copy the file that was read, mended. Raises ResourceError if it changed since.

        One call, so no reader ever sees a part of it. Tags and annotations are not copied, since they would
        need more permissions.
        """
        try:
            if self.is_mended:
                self._write_mended(bucket, key)
            else:
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

    def _write_mended(self, bucket: str, key: str) -> None:
        opened = self.s3.get_object(**self.location, IfMatch=self.etag)
        if opened["ContentLength"] > MOST_MENDED_BYTES:
            raise ResourceError(
                f"{self} has a byte order mark or CRLF line ends, which are mended in files up to "
                f"{MOST_MENDED_BYTES} bytes; it has {opened['ContentLength']}. Save it as UTF-8 with LF."
            )
        content = Mending().mend(opened["Body"].read(), is_last=True)
        self.s3.put_object(Bucket=bucket, Key=key, Body=content)

    def _unreadable(self, error: ClientError) -> ResourceError:
        found = "It does not exist" if is_missing(error) else "It can't be read"
        if code(error) == "AccessDenied":
            # S3 also answers this for a missing object, unless the caller may list the bucket.
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
    """Return the file that the properties name by Key, or all files of the folder that they name by Prefix.

    The property `Content` identifies a folder's content: 16 hex digits over the names and ETags of its files.
    Raises ResourceError if the content differs, so nothing is labelled under the digest of something else.
    """
    if "Prefix" not in properties:
        return [DataFile.of(name, properties, s3, retry)]
    bucket, prefix = properties["Bucket"], properties["Prefix"]
    folder = f"Data set folder {name} s3://{bucket}/{prefix}"
    check_region(s3, bucket, folder)
    try:
        listed = retry(
            lambda: _listed(s3, bucket, prefix),
            retryable=lambda error: code(error) in DENIED,
            seconds=ACCESS_WAIT_SECONDS,
        )
    except ClientError as error:
        raise ResourceError(
            f"{folder} can't be listed ({code(error)}: {message(error)}). Nothing was published. Check "
            f"dataset.{name} in the environment's settings, and the bucket's policy."
        ) from error
    if not listed:
        raise ResourceError(f"{folder} contains no files ending in {kinds()}.")
    content = sha256(repr(sorted(listed.items())).encode()).hexdigest()[:16]
    if content != properties["Content"]:
        raise ResourceError(
            f"{folder} does not match dataset.{name}_version = {properties['Content']!r}. Nothing was "
            f"published. The digits of its {len(listed)} files are {content!r} now: set these to label them."
        )
    return [DataFile.of(name, {"Bucket": bucket, "Key": key}, s3, retry) for key in sorted(listed)]


def _listed(s3: Any, bucket: str, prefix: str) -> dict[str, str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [item for page in pages for item in page.get("Contents", ())]
    return {item["Key"]: item["ETag"] for item in found if item["Key"].lower().endswith(KINDS)}


def check_region(s3: Any, bucket: str, what: str) -> None:
    """Raise ResourceError for a bucket in another Region, if S3 tells the Region.

    Bedrock reads only from its own Region, and AWS charges a copy between Regions.
    """
    try:
        answered = s3.head_bucket(Bucket=bucket)
        found = answered.get("BucketRegion")
    except ClientError as error:
        # S3 tells the Region even to a caller without access.
        found = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    own = os.environ.get("AWS_REGION")
    if found and own and found != own:
        raise ResourceError(
            f"{what} is in {found}, and this stack in {own}. Nothing was published. "
            f"Copy it to a bucket in {own}."
        )
