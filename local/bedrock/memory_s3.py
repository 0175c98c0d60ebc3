"""A test double of S3 in memory, with the operations that the stand-in calls."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

# Keys in a page of a list (S3 API reference, ListObjectsV2: MaxKeys).
PAGE = 1_000


class MemoryS3:
    """Objects by bucket and key; every bucket exists.

    Example:
        s3 = MemoryS3()
        s3.put_object(Bucket="data", Key="training.jsonl", Body=b"...")
        with BedrockStandIn(s3=s3) as bedrock: ...
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self._details: dict[tuple[str, str], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803 - S3's own
        Key: str,  # noqa: N803 - S3's own
        Body: bytes | str,  # noqa: N803 - S3's own
        IfNoneMatch: str | None = None,  # noqa: N803 - S3's own
        Metadata: Mapping[str, str] = {},  # noqa: N803 - S3's own
        **_: Any,
    ) -> dict[str, Any]:
        """Handle PutObject."""
        with self._lock:
            if IfNoneMatch == "*" and (Bucket, Key) in self.objects:
                raise ClientError(
                    {"Error": {"Code": "PreconditionFailed", "Message": "At least one condition failed."}},
                    "PutObject",
                )
            self.objects[Bucket, Key] = Body.encode() if isinstance(Body, str) else bytes(Body)
            self._details[Bucket, Key] = {"Metadata": dict(Metadata), "LastModified": datetime.now(UTC)}
        return {}

    def get_object(self, *, Bucket: str, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's own
        """Handle GetObject."""
        with self._lock:
            body = self.objects.get((Bucket, Key))
            details = self._details.get((Bucket, Key), {})
        if body is None:
            raise ClientError(
                {"Error": {"Code": "NoSuchKey", "Message": "The specified key does not exist."}}, "GetObject"
            )
        return {
            "Body": StreamingBody(io.BytesIO(body), len(body)),
            "ContentLength": len(body),
            "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            **details,
        }

    def head_bucket(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803 - S3's own
        """Handle HeadBucket; every bucket exists."""
        del Bucket
        return {"BucketRegion": "us-east-1"}

    def list_objects_v2(
        self,
        *,
        Bucket: str,  # noqa: N803 - S3's own
        Prefix: str = "",  # noqa: N803 - S3's own
        Delimiter: str = "",  # noqa: N803 - S3's own
        StartAfter: str = "",  # noqa: N803 - S3's own
        ContinuationToken: str = "",  # noqa: N803 - S3's own
        **_: Any,
    ) -> dict[str, Any]:
        """Handle ListObjectsV2: a page of at most PAGE objects and folders."""
        after = max(StartAfter, ContinuationToken)
        with self._lock:
            keys = sorted(
                key
                for bucket, key in self.objects
                if bucket == Bucket and key.startswith(Prefix) and key > after
            )
            sizes = {key: len(self.objects[Bucket, key]) for key in keys}
        ends = {key: key.find(Delimiter, len(Prefix)) if Delimiter else -1 for key in keys}
        found = list(dict.fromkeys(key[: end + 1] if end >= 0 else key for key, end in ends.items()))
        page, rest = found[:PAGE], found[PAGE:]
        # The token is after all keys of a folder.
        token = {"NextContinuationToken": f"{page[-1]}\U0010ffff" if Delimiter else page[-1]} if rest else {}
        return {
            "Contents": [{"Key": name, "Size": sizes[name]} for name in page if name in sizes],
            "CommonPrefixes": [{"Prefix": name} for name in page if name not in sizes],
            "KeyCount": len(page),
            "IsTruncated": bool(rest),
            **token,
        }

    def list_object_versions(self, *, Bucket: str, Prefix: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's own
        """Handle ListObjectVersions of a bucket without versions."""
        found = self.list_objects_v2(Bucket=Bucket, Prefix=Prefix)["Contents"]
        return {"Versions": [{**item, "VersionId": "null", "IsLatest": True} for item in found]}

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's own
        """Handle DeleteObjects."""
        with self._lock:
            for item in Delete["Objects"]:
                self.objects.pop((Bucket, item["Key"]), None)
        return {}

    def get_paginator(self, operation: str) -> _Pages:
        """Return the paginator of `list_objects_v2`."""
        if operation != "list_objects_v2":
            raise ValueError(f"this double has a paginator for list_objects_v2 only, not for {operation}")
        return _Pages(self)


class _Pages:
    def __init__(self, s3: MemoryS3) -> None:
        self._s3 = s3

    def paginate(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        page = self._s3.list_objects_v2(**parameters)
        yield page
        while page["IsTruncated"]:
            page = self._s3.list_objects_v2(**parameters, ContinuationToken=page["NextContinuationToken"])
            yield page
