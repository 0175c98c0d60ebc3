"""Read a job's training data from S3 and apply Bedrock's rules for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.bedrock.student import Row

# Words that Nova customization reserves as markup.
RESERVED = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")
_GIGABYTE = 1_000_000_000
_S3_ERRORS = (ClientError, BotoCoreError, KeyError, OSError)


@dataclass(frozen=True)
class Limits:
    """The limits of one customization type: numbers of rows, whether answers are required, the schema."""

    minimum: int
    maximum: int
    answers_required: bool
    schema: str | None


LIMITS = {
    "DISTILLATION": Limits(100, 15_000, answers_required=False, schema="bedrock-conversation-2024"),
    "FINE_TUNING": Limits(8, 20_000, answers_required=True, schema=None),
}


class DataError(Exception):
    """Invalid data; the text becomes the job's failure message."""


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def read_objects(s3: Any, uri: str, suffix: str = ".jsonl") -> Iterator[tuple[str, bytes]]:
    """Yield key and content of the objects at a URI, which is a file or a prefix.

    Raises:
        DataError: an object can't be read, or there is none.
    """
    bucket, key = split_uri(uri)
    try:
        keys = [key] if key.endswith(suffix) else _keys_below(s3, bucket, key, suffix)
        for found in keys:
            yield found, s3.get_object(Bucket=bucket, Key=found)["Body"].read()
    except _S3_ERRORS as error:
        raise DataError(
            f"Could not validate GetObject permissions to access Amazon S3 bucket: {bucket} at key {key}. "
            f"{error}"
        ) from error
    if not keys:
        raise DataError(f"No {suffix} file was found at {uri}.")


def write_object(s3: Any, uri: str, name: str, body: bytes) -> None:
    """Write an object below an output URI.

    Raises:
        DataError: the object can't be written.
    """
    bucket, prefix = split_uri(uri)
    key = f"{prefix.rstrip('/')}/{name}" if prefix else name
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    except _S3_ERRORS as error:
        raise DataError(f"Amazon S3 perms missing (PutObject): s3://{bucket}/{key}. {error}") from error


def _keys_below(s3: Any, bucket: str, prefix: str, suffix: str) -> list[str]:
    keys: list[str] = []
    page: dict[str, Any] = {}
    while True:
        page = s3.list_objects_v2(
            Bucket=bucket,
            Prefix=prefix,
            **({"ContinuationToken": page["NextContinuationToken"]} if page else {}),
        )
        keys += [item["Key"] for item in page.get("Contents", ()) if item["Key"].endswith(suffix)]
        if not page.get("IsTruncated"):
            return sorted(keys)


def read_rows(s3: Any, uri: str, customization_type: str) -> list[Row]:
    """Return the valid rows of a job's training data; like Bedrock, drop rows of another shape.

    Raises:
        DataError: the job fails on its data.
    """
    limits = LIMITS[customization_type]
    rows: list[Row] = []
    size = total = 0
    for key, body in read_objects(s3, uri):
        if customization_type == "FINE_TUNING" and not re.fullmatch(r"[A-Za-z0-9_\-/.]+", key):
            raise DataError(
                f"The file name {key} holds characters other than A-Z, a-z, 0-9, _, -, / and dots."
            )
        size += len(body)
        for record in _records(key, body):
            total += 1
            row = _row(record, limits.schema)
            if row is not None and (row.answer is not None or not limits.answers_required):
                _refuse_reserved(row, key, total)
                rows.append(row)
    if size >= _GIGABYTE:
        raise DataError(f"The training data holds {size} bytes; it must hold less than 1 GB.")
    if not limits.minimum <= len(rows) <= limits.maximum:
        raise DataError(
            f"The training data holds {len(rows)} valid records of {total}; "
            f"a {customization_type} job takes from {limits.minimum} to {limits.maximum}."
        )
    return rows


def _records(key: str, body: bytes) -> Iterator[Any]:
    try:
        lines = body.decode("utf-8").removesuffix("\n").split("\n")
        for line in lines:
            yield json.loads(line)
    except ValueError:
        raise DataError(
            f"Unable to parse Amazon S3 file {key}: every line must be one JSON object (JSONL)."
        ) from None


def _row(record: Any, schema: str | None) -> Row | None:
    """Return the last exchange of a record as a row, or None if the record has another shape."""
    if not isinstance(record, dict) or not isinstance(record.get("schemaVersion"), str):
        return None
    if schema is not None and record["schemaVersion"] != schema:
        return None
    messages = record.get("messages")
    system = _text(record.get("system", [{"text": ""}]))
    if system is None or not isinstance(messages, list) or not messages:
        return None
    texts = []
    for index, message in enumerate(messages):
        role = ("user", "assistant")[index % 2]
        text = (
            _text(message.get("content"))
            if isinstance(message, dict) and message.get("role") == role
            else None
        )
        if text is None:
            return None
        texts.append(text)
    if len(texts) % 2:
        return Row(system, texts[-1], None)
    return Row(system, texts[-2], texts[-1])


def _text(content: Any) -> str | None:
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return None
    text = content[0].get("text")
    return text if isinstance(text, str) else None


def _refuse_reserved(row: Row, key: str, number: int) -> None:
    for word in RESERVED:
        if word in row.system or word in row.prompt or (row.answer and word in row.answer):
            raise DataError(
                f"Record {number} of {key} holds {word!r}, which is reserved and may not be in a prompt."
            )
