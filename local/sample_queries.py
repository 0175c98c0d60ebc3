"""The queries that `make local` asks: those of a file, or some of the environment's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from distilled_router.data.conversation import InvalidRow, examples
from distilled_router.data.findings import Report
from distilled_router.data.line_rules import lines
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import Task
from operate import route
from operate.errors import OperateError
from stacks.settings import PROJECT, Settings, is_s3

FILE = "sample_queries.txt"
ASKED = 6
_CHUNK_BYTES = 65_536


def read(settings: Settings, file: Path | None = None) -> list[str]:
    """Return queries.

    Args:
        settings: of the environment.
        file: with one query on each line. Default: `sample_queries.txt` in the task's folder or beside the
            data; without one, the first rows of the data.

    Raises:
        OperateError: The file can't be read.
    """
    dataset, task = settings.dataset, Task.load(settings.task_folder)
    labelled, raw = dataset.holdout or dataset.training, dataset.queries
    files = [PROJECT / location for location in (labelled, raw) if location and not is_s3(location)]
    folders = [settings.task_folder, *(path.parent for path in files or [PROJECT / "data" / FILE])]
    found = file or next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if found:
        return route.read(found)
    return list(islice(_queries(files[0], task, is_labelled=labelled is not None), ASKED)) if files else []


def _queries(file: Path, task: Task, *, is_labelled: bool) -> Iterator[str]:
    with file.open("rb") as content:
        rows = lines(iter(lambda: content.read(_CHUNK_BYTES), b""))
        if not is_labelled:
            yield from QueryCheck(task, Report()).read(file.name, rows)
            return
        try:
            yield from (row.query for row in examples((line.decode() for line in rows), task))
        except (InvalidRow, UnicodeDecodeError) as error:
            raise OperateError(
                f"{file} can't be used: {error}", advice=f"Check it: make dataset-check FILE={file}"
            ) from error
