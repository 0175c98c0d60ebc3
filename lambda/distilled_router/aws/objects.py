"""Read and write JSON documents and JSON Lines files in a bucket."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from distilled_router.aws.errors import or_none


def json_lines(rows: Iterable[object]) -> Iterator[bytes]:
    """Return the lines of a JSON Lines file."""
    return (f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode() for row in rows)


class Folder:
    """A folder of a bucket; keys are relative to it."""

    def __init__(self, s3: Any, bucket: str, prefix: str) -> None:
        """Open a folder; `prefix` ends in a slash."""
        self.bucket, self.prefix = bucket, prefix
        self._s3 = s3

    def uri(self, key: str) -> str:
        """Return the S3 URI of a key."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def names(self, under: str = "") -> list[str]:
        """Return all keys below a folder, in order."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}{under}"
        )
        found = [str(item["Key"]) for page in pages for item in page.get("Contents", ())]
        return [key.removeprefix(self.prefix) for key in sorted(found)]

    def read(self, key: str) -> Any | None:
        """Return a JSON document, or None if the key does not exist."""
        found = or_none(self._s3.get_object, Bucket=self.bucket, Key=f"{self.prefix}{key}")
        return None if found is None else json.loads(found["Body"].read())

    def rows(self, key: str) -> Iterator[Any]:
        """Yield the documents of a JSON Lines file."""
        body = self._s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}{key}")["Body"]
        for line in body.iter_lines():
            if line.strip():
                yield json.loads(line)

    def write(self, key: str, document: object) -> None:
        """Write a JSON document."""
        self._put(key, json.dumps(document, indent=1, allow_nan=False).encode(), "application/json")

    def write_page(self, key: str, page: str) -> None:
        """Write an HTML page."""
        self._put(key, page.encode(), "text/html; charset=utf-8")

    def write_rows(self, key: str, rows: Iterable[object]) -> None:
        """Write a JSON Lines file, completely or not at all."""
        self._put(key, b"".join(json_lines(rows)), "application/x-ndjson")

    def _put(self, key: str, body: bytes, kind: str) -> None:
        self._s3.put_object(Bucket=self.bucket, Key=f"{self.prefix}{key}", Body=body, ContentType=kind)
