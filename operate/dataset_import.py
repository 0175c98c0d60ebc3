"""Convert labelled rows of another form into rows of this project.

Each query gets the task's student prompt, and its answer is written as the task
writes it. What was dropped is counted by reason, and what was guessed is told.
Nothing leaves this machine. The output is written completely or not at all. The
exit status is 0 if at least one row was written, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import textwrap
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from distilled_router.data.conversation import row
from distilled_router.data.findings import Report
from distilled_router.data.invocation_logs import MOST_RECORD_BYTES, LeftOut
from distilled_router.data.labelling_plan import QUERY_MARK
from distilled_router.data.line_rules import TextFile, lines
from distilled_router.task.task import Task
from operate.console import console, say
from operate.errors import OperateError
from operate.import_forms import FORMS, Found, Wanted

EXAMPLES = """\
  python -m operate dataset-import --from openai theirs.jsonl \\
    --out rows.jsonl
  python -m operate dataset-import --from csv tickets.csv --out rows.jsonl \\
    --query text --label intent --task examples/helpdesk
  python -m operate dataset-import --from invocation-logs log.json.gz \\
    --out rows.jsonl --template "Query: {query}"
"""
_WIDTH = 80
_CHUNK_BYTES = 65_536
_GZIP = b"\x1f\x8b"
# The setting that has the same meaning, in the reasons of a record of an invocation log.
_SETTING, _OPTION = "dataset.log_query", "--template"


@dataclass
class Group:
    """Rows with the same fate: their number, the first one's line, and what is special about that one."""

    line: int
    example: str = ""
    count: int = 0


@dataclass
class Tally:
    """What became of the rows of a file. Rows of `unanswered` are among those that were written."""

    written: int = 0
    repeated: int = 0
    dropped: dict[str, Group] = field(default_factory=dict)
    unanswered: dict[str, Group] = field(default_factory=dict)
    prompts: set[bytes] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def add(self, groups: dict[str, Group], line: int, left: LeftOut) -> None:
        """Count a row that has no answer, or is dropped."""
        reason = left.reason.replace(_SETTING, _OPTION)
        group = groups.setdefault(reason, Group(line, left.example))
        group.count += 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, help="file to convert; it may be compressed with gzip")
    parser.add_argument(
        "--from",
        dest="form",
        required=True,
        choices=list(FORMS),
        metavar="FORM",
        help=f"form of the file's rows: {', '.join(FORMS)}",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file for the rows (.jsonl)")
    parser.add_argument("--replace", action="store_true", help="overwrite an existing file")
    parser.add_argument("--task", type=Path, metavar="FOLDER", help="folder of the task; by default task/")
    parser.add_argument("--query", metavar="NAME", default="", help="column or key of the queries")
    parser.add_argument("--answer", metavar="NAME", default="", help="column or key of the answers")
    parser.add_argument(
        "--label",
        metavar="NAME",
        default="",
        help="column or key with a label's name: that label gets the weight 1, the others 0",
    )
    parser.add_argument(
        "--template",
        type=_template,
        metavar="TEXT",
        default=QUERY_MARK,
        help=f"text around the query, such as 'Query: {QUERY_MARK}', as dataset.log_query of the settings; "
        "\\n is a line break",
    )
    parser.add_argument(
        "--teacher", metavar="MODEL", default="", help="model whose answers in an invocation log count"
    )
    parser.add_argument(
        "--log-filter",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="request metadata that a logged request must have; may be repeated",
    )
    parser.add_argument(
        "--without-answers",
        action="store_true",
        help="keep rows whose answer has no weights, for the teacher to answer",
    )


def _template(given: str) -> str:
    text = given.replace("\\n", "\n")
    if text.count(QUERY_MARK) != 1:
        raise argparse.ArgumentTypeError(f"found {given}, expected text with {QUERY_MARK} once")
    return text


def _pair(given: str) -> tuple[str, str]:
    key, sign, value = given.partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError(f"found {given}, expected KEY=VALUE")
    return key, value


def run(options: argparse.Namespace) -> int:
    """Convert a file and tell what became of its rows; return 0 if any was written."""
    if (options.label and options.answer) or (
        options.form != "invocation-logs" and (options.teacher or options.log_filter)
    ):
        raise OperateError(
            "These options don't go together: --label with --answer, and --teacher or --log-filter "
            "with another form than invocation-logs.",
            advice="Leave one of them out.",
        )
    wanted = Wanted(
        task=Task.load(options.task),
        query=options.query,
        answer=options.answer,
        label=options.label,
        template=options.template,
        teacher=options.teacher,
        filters=dict(options.log_filter),
        may_lack_answers=options.without_answers,
    )
    found = convert(options.file, options.form, options.out, wanted, may_replace=options.replace)
    say(console(), *shown(found, options.file, options.out))
    if found.written:
        # One line, to be copied.
        task = f" TASK={options.task}" if options.task else ""
        say(console(), "Next:", f"  make dataset-check FILE={options.out}{task}")
    return 0 if found.written else 1


def convert(file: Path, form: str, out: Path, wanted: Wanted, *, may_replace: bool = False) -> Tally:
    """Convert a file; write nothing if none of its rows can be used.

    Args:
        file: rows of another form, as it is or compressed with gzip.
        form: a name of FORMS.
        out: for the rows in Bedrock's conversation format.
        wanted: the task, and what the user says about the file.
        may_replace: whether an existing `out` is overwritten.

    Raises:
        OperateError: The file can't be read, its form is another, or the output can't be written.
    """
    _check_output(file, out, may_replace=may_replace)
    # In the same folder, so that it can be renamed.
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with ExitStack() as opened:
            numbered, report = _numbered(file, opened)
            try:
                reading = FORMS[form](numbered, wanted)
                rows = opened.enter_context(part.open("x", encoding="utf-8", newline="\n"))
                tally = _write(reading.rows, rows, wanted)
            except OperateError as error:
                raise OperateError(f"{file}: {error}", advice=error.advice) from error
        if refused := [finding.message for finding in report.findings if finding.severity == "error"]:
            raise OperateError(f"{file}: {refused[0]}.")
        if tally.written:
            _check_output(file, out, may_replace=may_replace)
            part.replace(out)
        tally.told = [*reading.told, *(f"In the file: {finding.message}." for finding in report.findings)]
        return tally
    except (OSError, EOFError, zlib.error) as error:
        what = f"{file} can't be converted to {out}"
        raise OperateError(f"{what}: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _check_output(file: Path, out: Path, *, may_replace: bool) -> None:
    """Raise OperateError if the output can't be written where the user says."""
    if not file.is_file():
        raise OperateError(
            f"{file} is a folder: name a file in it." if file.is_dir() else f"{file} doesn't exist."
        )
    if out.is_dir() or not out.parent.is_dir():
        problem = "is a folder" if out.is_dir() else "is in a folder that doesn't exist"
        raise OperateError(f"{out} {problem}.", advice="Name a file in a folder that exists with --out.")
    if not out.exists():
        return
    if out.samefile(file):
        raise OperateError(f"{out} is the file to convert.", advice="Name another file with --out.")
    if not may_replace:
        raise OperateError(
            f"{out} exists already.", advice="Name another file with --out, or overwrite it with --replace."
        )


def _numbered(file: Path, opened: ExitStack) -> tuple[Iterator[tuple[int, bytes]], Report]:
    """Return the lines of a file, numbered from 1, and the report that gets the faults of its encoding."""
    content: BufferedIOBase = opened.enter_context(file.open("rb"))
    is_packed = content.read(len(_GZIP)) == _GZIP
    content.seek(0)
    if is_packed:
        content = opened.enter_context(gzip.GzipFile(fileobj=content))
    report = Report()
    chunks = iter(lambda: content.read(_CHUNK_BYTES), b"")
    return TextFile(file.name, report).read(lines(chunks, longest=MOST_RECORD_BYTES)), report


def _write(rows: Iterator[tuple[int, Found | LeftOut]], to: IO[str], wanted: Wanted) -> Tally:
    """Write the rows that can be used, and return what became of each row."""
    tally, queries = Tally(), set[bytes]()
    for line, found in rows:
        if isinstance(found, LeftOut):
            tally.add(tally.dropped, line, found)
            continue
        if found.weights is None and found.lacks is not None:
            tally.add(tally.unanswered if wanted.may_lack_answers else tally.dropped, line, found.lacks)
            if not wanted.may_lack_answers:
                continue
        to.write(json.dumps(row(wanted.task, found.query, found.weights), ensure_ascii=False) + "\n")
        tally.written += 1
        key = _key(found.query)
        tally.repeated += key in queries
        queries.add(key)
        if found.prompt:
            tally.prompts.add(_key(found.prompt))
    return tally


def _key(text: str) -> bytes:
    """Return a short key of a text, so that many of them don't fill the memory."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def shown(found: Tally, file: Path, out: Path) -> Iterator[str]:
    """Yield what a person should know of a conversion, in lines of at most 80 columns where words allow."""
    for paragraph in _paragraphs(found, file, out):
        indent = " " * (len(paragraph) - len(paragraph.lstrip()))
        yield from textwrap.wrap(
            paragraph,
            _WIDTH,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _paragraphs(found: Tally, file: Path, out: Path) -> Iterator[str]:
    yield from found.told
    if found.prompts:
        yield (
            f"The rows' own prompts ({_counted(len(found.prompts), 'text')}) are replaced by the task's "
            "student prompt."
        )
    if found.repeated:
        rows = "1 row repeats" if found.repeated == 1 else f"{found.repeated:,} rows repeat"
        yield f"{rows} an earlier query exactly; all are kept, and dataset-check judges them."
    dropped = sum(group.count for group in found.dropped.values())
    if found.written:
        unanswered = sum(group.count for group in found.unanswered.values())
        without = f", {unanswered:,} of them without an answer" if found.unanswered else ""
        yield f"Wrote {_counted(found.written, 'row')} to {out}{without}; dropped {dropped:,}."
    elif dropped:
        yield f"None of the {_counted(dropped, 'row')} of {file} can be used; nothing was written."
    else:
        yield f"{file} has no row; nothing was written."
    yield from _groups("Without an answer:", found.unanswered)
    yield from _groups("Dropped:", found.dropped)


def _groups(title: str, groups: dict[str, Group]) -> Iterator[str]:
    """Yield how many rows have each reason, the most frequent first."""
    if groups:
        yield title
    for reason, group in sorted(groups.items(), key=lambda item: -item[1].count):
        example = f" ({group.example})" if group.example else ""
        where = f"line {group.line}" if group.count == 1 else f"the first in line {group.line}"
        yield f"  {group.count:,} {reason}; {where}{example}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
