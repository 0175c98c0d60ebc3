"""Delete folders of the data bucket with all versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code

# Seconds that one poll of a Delete purges. CloudFormation waits an hour for all polls and their pauses.
PURGE_SECONDS = 4.0


def purge(
    s3: Any,
    bucket: str,
    prefix: str,
    *,
    until: Callable[[], bool] = lambda: False,
    unless: Callable[[], bool] = lambda: False,
) -> bool:
    """Delete every version under a prefix. Return True once none is left, False if `until` stopped it.

    A versioned bucket can be deleted only without versions and delete markers. The prefix must end in a
    slash: otherwise `jobs/a` would include `jobs/ab`. A bucket that does not exist counts as empty.

    `unless` returns whether the folder is needed. It is called after each list of versions and before their
    deletion, and ends the purge with True.
    """
    if not prefix.endswith("/") or prefix == "/":
        raise ValueError(f"{prefix!r} is not a folder: it must end in a slash")
    while True:
        found = versions(s3, bucket, prefix)
        if not found or unless():
            return True
        delete_versions(s3, bucket, found)
        if until():
            return False


def versions(s3: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Return the first versions and delete markers under a prefix, 1,000 at most."""
    try:
        page = s3.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=1000)
    except ClientError as error:
        if code(error) == "NoSuchBucket":
            return []
        raise
    return [*page.get("Versions", []), *page.get("DeleteMarkers", [])]


def delete_versions(s3: Any, bucket: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Delete versions and delete markers, as `versions` returns them."""
    if not found:
        return
    objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    if answer.get("Errors"):
        first = answer["Errors"][0]
        raise ResourceError(
            f"s3://{bucket}/{first['Key']} can't be deleted: {first['Code']} {first['Message']}"
        )


def deadline(seconds: float, now: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Return a function that says whether `seconds` have passed since this call."""
    end = now() + seconds
    return lambda: now() > end
