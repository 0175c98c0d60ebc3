"""The files that dataset-import converts: their lines, one file after another, compressed or not."""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import BufferedIOBase
from pathlib import Path

from distilled_router.data.findings import Report
from distilled_router.data.invocation_logs import MOST_RECORD_BYTES
from distilled_router.data.line_rules import TextFile, lines
from operate.errors import OperateError

_CHUNK_BYTES = 65_536
_GZIP = b"\x1f\x8b"
_ENDINGS = (".gz", ".json", ".jsonl")
# Folder of the bodies of more than 100 KB, beside the records of an invocation log.
_BODIES = "data"


class Files:
    """The lines of files, numbered from 1 through all of them.

    Attributes:
        paths: the files.
        current: the one that is being read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.current = paths, paths[0]
        self._report = Report()
        self._befores: list[int] = []

    def __str__(self) -> str:
        return str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths):,} files"

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines of all files."""
        before = 0
        for path in self.paths:
            self.current = path
            self._befores.append(before)
            with ExitStack() as opened:
                text = TextFile(path.name, self._report)
                chunks = _chunks(path, opened)
                for number, line in text.read(lines(chunks, longest=MOST_RECORD_BYTES)):
                    yield before + number, line
            before += text.lines

    def place(self, line: int) -> str:
        """Return where a line is, e.g. `line 3`, or `line 3 of b.json.gz` if there are several files."""
        number = bisect_right(self._befores, line - 1) - 1
        where = f"line {line - self._befores[number]}"
        return where if len(self.paths) == 1 else f"{where} of {self.paths[number].name}"

    def check(self) -> None:
        """Raise OperateError for a file that is no text, or for a single one without lines."""
        for finding in self._report.findings:
            is_one_of_many = finding.rule == "empty" and len(self.paths) > 1
            if finding.severity == "error" and not is_one_of_many:
                file = next(path for path in self.paths if path.name == finding.file)
                raise OperateError(f"{file}: {finding.message}.")

    def told(self) -> Iterator[str]:
        """Yield what is to be known of the files' encodings."""
        for finding in self._report.findings:
            where = "the file" if len(self.paths) == 1 else finding.file
            yield f"In {where}: {finding.message}."


def _chunks(file: Path, opened: ExitStack) -> Iterator[bytes]:
    content: BufferedIOBase = opened.enter_context(file.open("rb"))
    is_packed = content.read(len(_GZIP)) == _GZIP
    content.seek(0)
    if is_packed:
        content = opened.enter_context(gzip.GzipFile(fileobj=content))
    return iter(lambda: content.read(_CHUNK_BYTES), b"")


def chosen(given: Iterable[Path]) -> list[Path]:
    """Return files as they are given, and all log objects below folders, in the order of their names.

    Raises:
        OperateError: One doesn't exist, or has no file.
    """
    return list(dict.fromkeys(path for one in given for path in _below(one)))


def _below(given: Path) -> list[Path]:
    if given.is_file():
        return [given]
    if not given.is_dir():
        raise OperateError(f"{given} doesn't exist.")
    files = (path for path in sorted(given.rglob("*")) if path.name.endswith(_ENDINGS) and path.is_file())
    found = [path for path in files if _BODIES not in path.relative_to(given).parts[:-1]]
    if not found:
        raise OperateError(
            f"{given} is a folder without a file {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}."
        )
    return found
