"""What this package keeps in its data bucket, and how a folder of it goes for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code

# How long one poll of a Delete purges: CloudFormation waits an hour for all of them, with their pauses.
PURGE_SECONDS = 4.0


def purge(s3: Any, bucket: str, prefix: str, *, until: Callable[[], bool] = lambda: False) -> bool:
    """Delete every version under a prefix; True once none is left, False if `until` said to stop before.

    A versioned bucket is only empty, and so only deletable, without versions and delete markers. The prefix
    must end in a slash: without it, `jobs/a` would take `jobs/ab` along. A bucket that is gone is empty.
    """
    if not prefix.endswith("/") or prefix == "/":
        raise ValueError(f"{prefix!r} is no folder")
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
    """A function that says whether so many seconds have passed since now."""
    end = now() + seconds
    return lambda: now() > end
