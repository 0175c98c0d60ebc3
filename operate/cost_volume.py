"""Count the rows or raw queries of an environment's data set, for the estimate of its cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilled_router.cost.estimate import Volume
from distilled_router.data.dataset_rules import lines
from distilled_router.data.findings import Report
from distilled_router.data.query_rules import QueryCheck
from distilled_router.links import inside
from distilled_router.task.task import Task
from operate.errors import OperateError
from stacks.settings import Settings

ASSUMED_ROWS = 1_000
_CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Counted:
    """The amount of data, and a sentence about it."""

    volume: Volume
    text: str


def count(settings: Settings, project: Path, rows: int | None = None) -> Counted:
    """Count an environment's training rows or raw queries.

    Args:
        settings: The environment's settings.
        project: The folder that paths in the settings are relative to.
        rows: Assume this many; if the file is on this machine, its queries tell their average length.

    Raises:
        OperateError: The file can't be read, or holds no rows.
    """
    dataset = settings.dataset
    raw = dataset.is_curated
    location = str(dataset.logs or (dataset.queries if raw else dataset.training))
    what = "different logged queries" if dataset.logs else "queries" if raw else "rows"
    if dataset.source == "file":
        return _of_file(settings, project, location, what, rows)
    number = rows or ASSUMED_ROWS
    text = f"{location}: {number:,} {what}, as ROWS says"
    if not rows:
        text = (
            f"{location} is not on this machine, so the number of {what} is unknown. The figures are for "
            f"{number:,}, each with an answer; give the real number with ROWS"
        )
    return Counted(Volume(queries=number), text)


def _of_file(settings: Settings, project: Path, location: str, what: str, rows: int | None) -> Counted:
    try:
        with inside(project, location).open("rb") as file:
            chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
            if what == "queries":
                volume, unread = _of_queries(location, lines(chunks), settings)
            else:
                volume, unread = _of_rows(lines(chunks))
    except OSError as error:
        raise OperateError(f"{location} can't be read: {error.strerror}.") from error
    if not volume.queries:
        raise OperateError(f"{location} contains no readable {what}.")
    text = f"{location}: {volume.queries:,} {what}"
    if volume.unlabelled:
        text += f", {volume.unlabelled:,} of them without an answer"
    if unread:
        text += f", and {unread:,} unusable lines, which are not counted"
    if rows:
        part = rows / volume.queries
        text = f"{rows:,} {what} as in {text}"
        volume = Volume(
            queries=rows,
            unlabelled=round(volume.unlabelled * part),
            query_bytes=round((volume.query_bytes or 0) * part),
        )
    return Counted(volume, text)


def _of_queries(name: str, content: Iterable[bytes], settings: Settings) -> tuple[Volume, int]:
    """Return the volume of a file's different queries, and how many lines have none that can be labelled."""
    report = Report()
    check = QueryCheck(Task.load(settings.task_folder), report)
    return Volume.of(check.read(name, content)), report.errors


def _of_rows(rows: Iterable[bytes]) -> tuple[Volume, int]:
    """Return the volume of training rows, and how many lines are unreadable."""
    unlabelled = unread = 0

    def texts() -> Iterator[str]:
        nonlocal unlabelled, unread
        for line in rows:
            if not line.strip():
                continue
            try:
                query, answered = _query(json.loads(line))
            except (ValueError, LookupError, TypeError, RecursionError):
                unread += 1
                continue
            unlabelled += not answered
            yield query

    counted = Volume.of(texts())
    return Volume(queries=counted.queries, unlabelled=unlabelled, query_bytes=counted.query_bytes), unread


def _query(row: Any) -> tuple[str, bool]:
    """Return the query of a training row, and False if Bedrock still has to answer it."""
    messages = row["messages"]
    return str(messages[0]["content"][0]["text"]), len(messages) > 1
