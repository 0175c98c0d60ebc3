"""Read and write objects of a bucket, and recognise those that somebody else has replaced.

Whoever may write to the bucket could replace an object between two steps. So no step relies on the bucket
alone. The SHA-256 of a published file travels in a message that the bucket doesn't hold (`Published`). Files
that the functions of one release or labelling leave for each other have a seal, whose key is in a table
(`Seal`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ReplacedError, code, is_missing, or_none

CHUNK_BYTES = 1 << 20
# An object's seal is in its metadata under this name.
SEAL = "seal"
_NEXT = (
    "Find out who wrote it: the bucket's access logs say when and with which role. Delete the newer versions "
    "of the object, and start again (raise release.attempt in the environment's settings)."
)


def json_lines(rows: Iterable[object]) -> Iterator[bytes]:
    """Return the lines of a JSON Lines file.

    Half of a surrogate pair becomes a question mark: a model's answer may be cut within an emoji.
    """
    return (
        f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode(errors="replace") for row in rows
    )


@dataclass(frozen=True)
class Published:
    """An object, and the SHA-256 that it had when it was published; empty if that is unknown."""

    bucket: str
    key: str
    sha256: str = ""

    @classmethod
    def at(cls, uri: str, sha256: str) -> Self:
        """Return the object of an S3 URI."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return cls(bucket, key, sha256)

    def read(self, s3: Any) -> bytes:
        """Return the content. Raises ReplacedError if it is not what was published, or is gone."""
        content: bytes = self._open(s3).read()
        self._compare(hashlib.sha256(content).hexdigest())
        return content

    def check(self, s3: Any) -> None:
        """Raise ReplacedError if the object is not what was published, or is gone."""
        if not self.sha256:
            return
        found = hashlib.sha256()
        for chunk in self._open(s3).iter_chunks(CHUNK_BYTES):
            found.update(chunk)
        self._compare(found.hexdigest())

    def _open(self, s3: Any) -> Any:
        try:
            return s3.get_object(Bucket=self.bucket, Key=self.key)["Body"]
        except ClientError as error:
            if not (self.sha256 and is_missing(error)):
                raise
            raise ReplacedError(
                f"{self} does not exist any more; its SHA-256 was {self.sha256}. It goes when other data is "
                f"deployed in its place: then deploy its data again. Otherwise: {_NEXT}"
            ) from error

    def _compare(self, found: str) -> None:
        if self.sha256 and found != self.sha256:
            raise ReplacedError(
                f"{self} was replaced after it was published: its SHA-256 is {found}, expected "
                f"{self.sha256}. {_NEXT}"
            )

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Seal:
    """Authenticates objects with an HMAC over their name and content, by a key that the bucket doesn't hold.

    Objects that S3 stored before `since`, in epoch seconds, need no seal: an earlier stack left them.
    """

    key: str = field(repr=False)
    since: float = 0.0

    def of(self, uri: str, content: bytes) -> str:
        """Return an object's seal."""
        # The name's hash has a fixed length, so that no part of the content can pass as part of the name.
        named = hashlib.sha256(uri.encode()).digest() + content
        return hmac.new(self.key.encode(), named, hashlib.sha256).hexdigest()

    def is_older(self, found: Mapping[str, Any]) -> bool:
        """Return whether S3 stored an object before there were seals, given GetObject's response."""
        return bool(self.since) and found["LastModified"].timestamp() < self.since

    def check(self, uri: str, content: bytes, found: Mapping[str, Any]) -> None:
        """Raise ReplacedError unless the object is sealed, given GetObject's response.

        The error doesn't tell the right seal, with which a replaced object would pass.
        """
        given = str(found.get("Metadata", {}).get(SEAL, ""))
        if hmac.compare_digest(given.encode(), self.of(uri, content).encode()):
            return
        if self.is_older(found):
            return
        raise ReplacedError(
            f"{uri} was not written by these functions, or was replaced: expected their seal, found "
            f"{'another one' if given else 'none'}; its SHA-256 is {hashlib.sha256(content).hexdigest()}. "
            f"{_NEXT}"
        )


class Folder:
    """A folder of a bucket; keys are relative to it.

    With a `seal`, objects are sealed when they are written, and checked when they are read.
    """

    def __init__(self, s3: Any, bucket: str, prefix: str, seal: Seal | None = None) -> None:
        """Open a folder; `prefix` ends in a slash."""
        self.bucket, self.prefix = bucket, prefix
        self._s3, self._seal = s3, seal

    @property
    def unsealed(self) -> Folder:
        """Return the same folder for objects that Bedrock wrote, which have no seal."""
        return Folder(self._s3, self.bucket, self.prefix)

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
        return None if found is None else json.loads(self._content(key, found))

    def read_bytes(self, key: str) -> bytes | None:
        """Return a file's content, or None if the key does not exist."""
        found = or_none(self._s3.get_object, Bucket=self.bucket, Key=f"{self.prefix}{key}")
        return None if found is None else self._content(key, found)

    def rows(self, key: str) -> Iterator[Any]:
        """Yield the documents of a JSON Lines file."""
        found = self._s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}{key}")
        # Nothing is used before all of it is checked.
        lines = found["Body"].iter_lines() if self._seal is None else self._content(key, found).splitlines()
        for line in lines:
            if line.strip():
                yield json.loads(line)

    def bedrock_rows(self, key: str) -> Iterator[Mapping[str, Any]]:
        """Yield the JSON objects of a JSON Lines file that Bedrock wrote, which has no seal.

        Other lines, such as one that was cut off, are left out: what else the file holds is paid for.
        """
        for line in self._s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}{key}")["Body"].iter_lines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row

    def write(self, key: str, document: object) -> None:
        """Write a JSON document."""
        self._put(key, json.dumps(document, indent=1, allow_nan=False).encode(), "application/json")

    def write_bytes(self, key: str, content: bytes) -> str:
        """Write a file. Return its SHA-256."""
        self._put(key, content, "application/octet-stream")
        return hashlib.sha256(content).hexdigest()

    def create(self, key: str, document: object) -> bool:
        """Write a JSON document unless the key exists. Return whether it was written."""
        return self._create(key, json.dumps(document).encode(), "application/json")

    def create_rows(self, key: str, rows: Iterable[object]) -> bool:
        """Write a JSON Lines file unless the key exists. Return whether it was written."""
        return self._create(key, b"".join(json_lines(rows)), "application/x-ndjson")

    def _create(self, key: str, body: bytes, kind: str) -> bool:
        try:
            self._put(key, body, kind, IfNoneMatch="*")
        except ClientError as error:
            if code(error) not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise
            return False
        return True

    def write_page(self, key: str, page: str) -> None:
        """Write an HTML page."""
        self._put(key, page.encode(), "text/html; charset=utf-8")

    def write_rows(self, key: str, rows: Iterable[object]) -> str:
        """Write a JSON Lines file, completely or not at all. Return its SHA-256."""
        content = b"".join(json_lines(rows))
        self._put(key, content, "application/x-ndjson")
        return hashlib.sha256(content).hexdigest()

    def _put(self, key: str, body: bytes, kind: str, **more: Any) -> None:
        if self._seal is not None:
            more["Metadata"] = {SEAL: self._seal.of(self.uri(key), body)}
        self._s3.put_object(
            Bucket=self.bucket, Key=f"{self.prefix}{key}", Body=body, ContentType=kind, **more
        )

    def _content(self, key: str, found: Mapping[str, Any]) -> bytes:
        content: bytes = found["Body"].read()
        if self._seal is not None:
            self._seal.check(self.uri(key), content, found)
        return content
