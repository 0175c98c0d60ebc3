"""A test double of S3's three calls that the stand-in makes, in memory."""

from __future__ import annotations

import io
import threading
from typing import Any

from botocore.exceptions import ClientError


class MemoryS3:
    """Objects by bucket and key; buckets exist as soon as something is put into them.

    Example:
        s3 = MemoryS3()
        s3.put_object(Bucket="data", Key="training.jsonl", Body=b"...")
        with BedrockStandIn(s3=s3) as bedrock: ...
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes | str, **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's own
        """PutObject."""
        with self._lock:
            self.objects[Bucket, Key] = Body.encode() if isinstance(Body, str) else bytes(Body)
        return {}

    def get_object(self, *, Bucket: str, Key: str, **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's own
        """GetObject."""
        with self._lock:
            body = self.objects.get((Bucket, Key))
        if body is None:
            raise ClientError(
                {"Error": {"Code": "NoSuchKey", "Message": "The specified key does not exist."}}, "GetObject"
            )
        return {"Body": io.BytesIO(body), "ContentLength": len(body)}

    def list_objects_v2(self, *, Bucket: str, Prefix: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803 - S3's own
        """ListObjectsV2, in one page."""
        with self._lock:
            keys = sorted(key for bucket, key in self.objects if bucket == Bucket and key.startswith(Prefix))
            contents = [{"Key": key, "Size": len(self.objects[Bucket, key])} for key in keys]
        return {"Contents": contents, "KeyCount": len(contents), "IsTruncated": False}
