"""Delete folders of the data bucket with all versions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code

# Seconds that one poll of a Delete purges. CloudFormation waits an hour for all polls and their pauses.
PURGE_SECONDS = 4.0


def purge(s3: Any, bucket: str, prefix: str, *, until: Callable[[], bool] = lambda: False) -> bool:
    """Delete every version under a prefix. Return True once none is left, False if `until` stopped it.

    A versioned bucket can be deleted only without versions and delete markers. The prefix must end in a
    slash: otherwise `jobs/a` would include `jobs/ab`. A bucket that does not exist counts as empty.
    """
    if not prefix.endswith("/") or prefix == "/":
        raise ValueError(f"{prefix!r} is not a folder: it must end in a slash")
    while True:
        try:
            page = s3.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=1000)
        except ClientError as error:
            if code(error) == "NoSuchBucket":
                return True
            raise
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if not found:
            return True
        objects = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise ResourceError(
                f"s3://{bucket}/{first['Key']} can't be deleted: {first['Code']} {first['Message']}"
            )
        if until():
            return False


def deadline(seconds: float, now: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Return a function that says whether `seconds` have passed since this call."""
    end = now() + seconds
    return lambda: now() > end
