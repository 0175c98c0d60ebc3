"""Convert labelled rows of another form into rows of this project.

Each query gets the task's student prompt, and its answer is written as the task
writes it. What was dropped is counted by reason, and what was guessed is told.
Nothing leaves this machine. The output is written completely or not at all. The
exit status is 0 if at least one row was written, and 1 otherwise. Messages name
the variables of make; docs/data.md has the option for each.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO

from distilled_router.data.conversation import row
from distilled_router.data.invocation_logs import LeftOut
from distilled_router.data.labelling_plan import QUERY_MARK
from distilled_router.task.task import Task
from operate.console import console, say
from operate.errors import OperateError
from operate.import_files import Files, chosen
from operate.import_forms import FORMS, Found, Wanted

LOGS = "invocation-logs"

EXAMPLES = """\
  python -m operate dataset-import --from openai theirs.jsonl \\
    --out rows.jsonl
  python -m operate dataset-import --from csv tickets.csv --out rows.jsonl \\
    --query text --label intent --task examples/helpdesk
  python -m operate dataset-import --from invocation-logs logs/ \\
    --out rows.jsonl --template "Query: {query}"
"""
# The setting that has the same meaning, in the reasons of a record of an invocation log.
_SETTING, _VARIABLE = "dataset.log_query", "TEMPLATE"


@dataclass
class Group:
    """Rows with the same fate: their number, the first one's place, and what is special about that one."""

    place: str
    example: str = ""
    count: int = 0


@dataclass
class Tally:
    """What became of the rows of files. Rows of `unanswered` are among those that were written."""

    files: Files
    written: int = 0
    repeated: int = 0
    dropped: dict[str, Group] = field(default_factory=dict)
    unanswered: dict[str, Group] = field(default_factory=dict)
    prompts: set[bytes] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def add(self, groups: dict[str, Group], line: int, left: LeftOut) -> None:
        """Count a row that has no answer, or is dropped."""
        reason = left.reason.replace(_SETTING, _VARIABLE)
        group = groups.setdefault(reason, Group(self.files.place(line), left.example))
        group.count += 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="file to convert; it may be compressed with gzip. For invocation-logs also several files, or "
        "folders of them",
    )
    parser.add_argument(
        "--from",
        dest="form",
        required=True,
        type=_form,
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
        "--count",
        metavar="NAME",
        default="",
        help="column or key that says how often a query was asked, for the rows of a hold-out set",
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


# argparse would name its own option, which make does not know.
def _form(given: str) -> str:
    if given not in FORMS:
        *others, last = FORMS
        raise OperateError(f"FROM: found {given}, expected {', '.join(others)} or {last}.", status=2)
    return given


def _template(given: str) -> str:
    text = given.replace("\\n", "\n")
    if text.count(QUERY_MARK) != 1:
        raise OperateError(f"TEMPLATE: found {given}, expected text with {QUERY_MARK} once.", status=2)
    return text


def _pair(given: str) -> tuple[str, str]:
    key, sign, value = given.partition("=")
    if not key or not sign:
        raise OperateError(f"FILTERS: found {given}, expected KEY=VALUE.", status=2)
    return key, value


def run(options: argparse.Namespace) -> int:
    """Convert a file and tell what became of its rows; return 0 if any was written."""
    _check_options(options)
    wanted = Wanted(
        task=Task.load(options.task),
        query=options.query,
        answer=options.answer,
        label=options.label,
        count=options.count,
        template=options.template,
        teacher=options.teacher,
        filters=dict(options.log_filter),
        may_lack_answers=options.without_answers,
    )
    files = chosen(options.files)
    found = convert(files, options.form, options.out, wanted, may_replace=options.replace)
    say(console(), *shown(found, options.out))
    if found.written:
        task = f" TASK={options.task}" if options.task else ""
        training = "... HOLDOUT=" if options.count else ""
        say(console(), "Next:", f"  make dataset-check FILE={training}{options.out}{task}")
    return 0 if found.written else 1


def _check_options(options: argparse.Namespace) -> None:
    """Raise OperateError for options that don't go together."""
    is_log = options.form == LOGS
    if (options.label and options.answer) or (not is_log and (options.teacher or options.log_filter)):
        raise OperateError(
            "These don't go together: LABEL with ANSWER, and TEACHER or FILTERS with another form than "
            "invocation-logs.",
            advice="Leave one of them out.",
        )
    if not is_log and (len(options.files) > 1 or options.files[0].is_dir()):
        found = f"{len(options.files)} files" if len(options.files) > 1 else f"{options.files[0]}, a folder"
        raise OperateError(
            f"Of the form {options.form} one file is converted at a time, found {found}.",
            advice="Convert each by itself. Only invocation-logs takes several files.",
        )


def convert(
    paths: Sequence[Path], form: str, out: Path, wanted: Wanted, *, may_replace: bool = False
) -> Tally:
    """Convert files; write nothing if none of their rows can be used.

    Args:
        paths: rows of another form, as they are or compressed with gzip.
        form: a name of FORMS.
        out: for the rows in Bedrock's conversation format.
        wanted: the task, and what the user says about the files.
        may_replace: whether an existing `out` is overwritten.

    Raises:
        OperateError: A file can't be read, its form is another, or the output can't be written.
    """
    _check_output(paths, out, may_replace=may_replace)
    files = Files(paths)
    # In the same folder, so that it can be renamed.
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        try:
            reading = FORMS[form](files.lines(), wanted)
            with part.open("x", encoding="utf-8", newline="\n") as rows:
                tally = _write(reading.rows, rows, wanted, files)
        except OperateError as error:
            raise OperateError(f"{files}: {error}", advice=error.advice or _task_used(wanted.task)) from error
        files.check()
        if tally.written:
            _check_output(paths, out, may_replace=may_replace)
            part.replace(out)
        tally.told = [*reading.told, *files.told()]
        if tally.dropped and not tally.written:
            tally.told.append(_task_used(wanted.task))
        return tally
    except (OSError, EOFError, zlib.error) as error:
        what = f"{files.current} can't be converted to {out}"
        raise OperateError(f"{what}: {getattr(error, 'strerror', None) or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _check_output(paths: Sequence[Path], out: Path, *, may_replace: bool) -> None:
    """Raise OperateError if the output can't be written where the user says."""
    if out.is_dir() or not out.parent.is_dir():
        problem = "is a folder" if out.is_dir() else "is in a folder that doesn't exist"
        raise OperateError(f"{out} {problem}.", advice="Name a file in a folder that exists with OUT.")
    if not out.exists():
        return
    if any(out.samefile(path) for path in paths):
        raise OperateError(f"{out} is a file to convert.", advice="Name another file with OUT.")
    if not may_replace:
        raise OperateError(
            f"{out} exists already.", advice="Name another file with OUT, or overwrite it with REPLACE=1."
        )


def _write(rows: Iterator[tuple[int, Found | LeftOut]], to: IO[str], wanted: Wanted, files: Files) -> Tally:
    """Write the rows that can be used, and return what became of each row."""
    tally, queries = Tally(files), set[bytes]()
    for line, found in rows:
        if isinstance(found, LeftOut):
            tally.add(tally.dropped, line, found)
            continue
        if found.weights is None and found.lacks is not None:
            tally.add(tally.unanswered if wanted.may_lack_answers else tally.dropped, line, found.lacks)
            if not wanted.may_lack_answers:
                continue
        to.write(
            json.dumps(row(wanted.task, found.query, found.weights, found.count), ensure_ascii=False) + "\n"
        )
        tally.written += 1
        key = _key(found.query)
        tally.repeated += key in queries
        queries.add(key)
        if found.prompt:
            tally.prompts.add(_key(found.prompt))
    return tally


def _task_used(task: Task) -> str:
    """Return which task the answers were read for: a wrong one is the likely reason if none can be used."""
    return (
        f"The labels are those of the task {task.name}: {', '.join(task.labels)}. If the rows are of another "
        "task, give its folder, such as TASK=tasks/support."
    )


def _key(text: str) -> bytes:
    """Return a short key of a text, so that many of them don't fill the memory."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def shown(found: Tally, out: Path) -> Iterator[str]:
    """Yield what a person should know of a conversion."""
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
        yield f"None of the {_counted(dropped, 'row')} of {found.files} can be used; nothing was written."
    else:
        yield f"{found.files} {'has' if len(found.files.paths) == 1 else 'have'} no row; nothing was written."
    yield from _groups("Without an answer:", found.unanswered)
    yield from _groups("Dropped:", found.dropped)


def _groups(title: str, groups: dict[str, Group]) -> Iterator[str]:
    """Yield how many rows have each reason, the most frequent first."""
    if groups:
        yield title
    for reason, group in sorted(groups.items(), key=lambda item: -item[1].count):
        example = f" ({group.example})" if group.example else ""
        where = group.place if group.count == 1 else f"the first in {group.place}"
        yield f"  {group.count:,} {reason}; {where}{example}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
