"""The rules for a data set's two files, checked before anybody pays for a job.

Bedrock drops rows that it can't read, or fails after hours; it never looks at whether the labels make sense.
So every rule is checked here first, row by row and in flat memory, and all findings come at once. Limits are
those of Amazon's guide to customizing Nova models (2026-11): data preparation for distillation and tuning.
"""

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from shared.answers import InvalidOutput
from shared.conversation import SCHEMA_VERSION, normalised
from shared.findings import Finding, Report, Severity
from shared.task import Task, reserved_word

__all__ = ["Finding", "Report", "check_dataset", "lines"]

# Rows that a job takes, by its method.
ROWS = {"distillation": (100, 15_000), "fine_tuning": (8, 20_000)}
# The hold-out is ours: Bedrock never sees it. Fewer than 100 rows make the gate's scores a matter of luck.
HOLDOUT_ROWS = (1, 20_000)
FEW_HOLDOUT_ROWS = 100
MAX_BYTES = 1_000_000_000
# About the 32k tokens of context that tuning has, at four bytes each.
MAX_LINE_BYTES = 131_072

_BOMS = (
    (b"\xef\xbb\xbf", "a UTF-8 byte order mark", "save it without the mark"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"\x1f\x8b", "gzip", "unpack it"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
)
_LONGEST_KEY = 200
_ROW_KEYS = {"schemaVersion", "system", "messages"}
_ROLES = ("user", "assistant")


def check_dataset(
    training: Iterable[bytes], holdout: Iterable[bytes], task: Task, method: str, keep: int = 5
) -> Report:
    """Checks a data set against all rules.

    Args:
        training: The file's lines as bytes, with or without their line ends: an open binary file, or
            `iter_lines()` of an S3 body. `lines` makes them of chunks, and bounds a file without line ends.
        holdout: Likewise. Both are read once, training first.
        task: The rows must carry its student prompt and answers in its format.
        method: `distillation` or `fine_tuning`.
        keep: How many findings to keep of each rule.

    Returns:
        The report. Whatever the files hold, it is a finding; only reading them may raise.
    """
    report = Report(keep)
    if method not in ROWS:
        known = " or ".join(ROWS)
        report.add(Finding("training", None, "method", f"found {method[:40]!r}, expected {known}"))
        return report
    learned = _File("training", task, ROWS[method], report, may_lack_labels=method == "distillation")
    learned.check(training)
    if report.unlabelled > 0:
        message = (
            f"{report.unlabelled} rows have no answer: the teacher will answer them under the student's"
            f" prompt; label them, or add at least 10 good answers"
        )
        report.add(Finding("training", None, "unlabelled", message, "warning"))
    asked = _File("holdout", task, HOLDOUT_ROWS, report, trained=learned.seen)
    asked.check(holdout)
    if 0 < report.rows["holdout"] < FEW_HOLDOUT_ROWS:
        message = f"found {report.rows['holdout']} rows; under {FEW_HOLDOUT_ROWS} the scores are mostly luck"
        report.add(Finding("holdout", None, "few-rows", message, "warning"))
    return report


def lines(chunks: Iterable[bytes], longest: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Splits chunks into lines (with their line ends), never holding more than a chunk and `longest` bytes.

    Of a longer line only the first `longest` + 1 bytes are given, which the rules report as too long.
    """
    pending = b""
    skipping = False
    for chunk in chunks:
        *complete, rest = (chunk if skipping else pending + chunk).split(b"\n")
        pending = b""
        for line in complete:
            if not skipping:
                yield line[: longest + 1] + b"\n"
            skipping = False
        if not skipping:
            if len(rest) > longest:
                yield rest[: longest + 1]
                skipping = True
            else:
                pending = rest
    if pending:
        yield pending


class _RowProblem(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class _File:
    """The check of one file. It remembers a key, a line and a label per query, of limited rows only."""

    def __init__(
        self,
        name: str,
        task: Task,
        rows: tuple[int, int],
        report: Report,
        *,
        may_lack_labels: bool = False,
        trained: dict[str | bytes, tuple[int, str]] | None = None,
    ) -> None:
        self.seen: dict[str | bytes, tuple[int, str]] = {}
        self._name = name
        self._task = task
        self._least, self._most = rows
        self._report = report
        self._may_lack_labels = may_lack_labels
        self._trained = trained or {}
        self._labels: dict[str, str | None] = {}  # an answer's problem; answers repeat

    def check(self, content: Iterable[bytes]) -> None:
        """Adds all findings of a file to the report."""
        number = valid = size = 0
        for number, line in enumerate(content, start=1):
            size += len(line) if line.endswith(b"\n") else len(line) + 1
            if number == 1 and (problem := _foreign(line)):
                # Every further line would be a finding that says less.
                self._found(None, "encoding", problem)
                return
            if number > self._most:
                continue  # counted only: the file is refused anyway, and memory stays flat
            try:
                self._check_line(number, line)
                valid += 1
            except _RowProblem as error:
                self._found(number, error.rule, str(error))
        self._report.rows[self._name] = number
        if number > self._most:
            self._found(None, "row-count", f"found {number} rows, at most {self._most}; leave some out")
        elif valid < self._least:
            message = f"found {valid} usable rows, at least {self._least}; add more"
            self._found(None, "row-count", message)
        if size >= MAX_BYTES:
            self._found(None, "size", f"found {size} bytes, must be under {MAX_BYTES}; leave rows out")

    def _check_line(self, number: int, line: bytes) -> None:
        query, answer = self._texts(_loaded(line))
        _check_text(query)
        if answer is None:
            self._report.unlabelled += 1
        else:
            self._check_label(answer)
        if len(query) > self._task.max_query_characters:
            allowed = self._task.max_query_characters
            message = f"found {len(query)} characters; the router refuses more than {allowed}"
            self._found(number, "query-length", message, "warning")
        self._compare(number, query, answer)

    def _texts(self, row: Any) -> tuple[str, str | None]:
        """The query and the answer of a row of the right shape."""
        if type(row) is not dict:
            raise _RowProblem("json", f"found {_named(row)}, expected one JSON object per line")
        if row.keys() != _ROW_KEYS:
            _refuse_keys(row, _ROW_KEYS, "a row")
        if row["schemaVersion"] != SCHEMA_VERSION:
            message = f"found {_shown(row['schemaVersion'])}, expected {SCHEMA_VERSION!r}"
            raise _RowProblem("schema-version", message)
        system = _only_text(row["system"], "system")
        if system != self._task.student_prompt:
            message = (
                f"found {_shown(system)}, expected the task's student prompt, character by character;"
                f" the student is asked with that one"
            )
            raise _RowProblem("system", message)
        messages = row["messages"]
        if type(messages) is not list or not 1 <= len(messages) <= 2:
            found = f"{len(messages)} items" if type(messages) is list else _named(messages)
            raise _RowProblem("messages", f"found {found}, expected one user and one assistant message")
        texts = []
        for role, message in zip(_ROLES, messages, strict=False):
            if type(message) is not dict:
                raise _RowProblem(
                    "messages", f"found {_named(message)}, expected a message with role and content"
                )
            if message.keys() != {"role", "content"}:
                _refuse_keys(message, {"role", "content"}, "a message")
            if message["role"] != role:
                found = _shown(message["role"])
                raise _RowProblem("role", f"found {found}, expected {role!r}: user, then assistant")
            texts.append(_only_text(message["content"], f"{role} content"))
        if len(texts) == 2:
            return texts[0], texts[1]
        if not self._may_lack_labels:
            raise _RowProblem("label", "found no answer, expected an assistant message with the weights")
        return texts[0], None

    def _check_label(self, answer: str) -> None:
        if answer in self._labels:
            problem = self._labels[answer]
        else:
            problem = self._label_problem(answer)
            if len(self._labels) < 10_000 and len(answer) < 200:
                self._labels[answer] = problem
        if problem:
            raise _RowProblem("label", problem)

    def _label_problem(self, answer: str) -> str | None:
        try:
            weights = self._task.parse(answer)
        except InvalidOutput as error:
            return f"{error}; expected {', '.join(self._task.labels)} with a sum of 1"
        if self._task.written_as_asked(answer):
            return None
        # The student learns the form, and the router allows it few tokens.
        return f"found {_shown(answer)}, expected exactly {self._task.render(weights)!r}"

    def _compare(self, number: int, query: str, answer: str | None) -> None:
        """Duplicates, conflicts and contamination. Of equal queries the first one counts."""
        key: str | bytes = normalised(query)
        if len(key) > _LONGEST_KEY:
            key = blake2b(normalised(query).encode(), digest_size=16).digest()
        if key in self._trained:
            line, _ = self._trained[key]
            message = f"found a query of training:{line} ({_shown(query)}); take it out of one of the files"
            raise _RowProblem("contamination", message)
        line, label = self.seen.setdefault(key, (number, answer or ""))
        if line == number:
            return
        if label != (answer or ""):
            message = f"found {_shown(answer)} for a query that has {_shown(label)} in line {line}; keep one"
            raise _RowProblem("conflict", message)
        self._found(
            number, "duplicate", f"the same query and answer as line {line}; leave one out", "warning"
        )

    def _found(self, line: int | None, rule: str, message: str, severity: Severity = "error") -> None:
        self._report.add(Finding(self._name, line, rule, message, severity))


def _foreign(line: bytes) -> str | None:
    for magic, what, remedy in _BOMS:
        if line.startswith(magic):
            return f"found {what}, expected plain UTF-8 text; {remedy}"
    if b"\x00" in line[:200]:
        return "found NUL bytes (UTF-16 text or binary data), expected plain UTF-8 text; save it as UTF-8"
    return None


def _loaded(line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise _RowProblem(
            "line-length", f"more than {MAX_LINE_BYTES} bytes; one row per line, and short ones"
        )
    if not line.strip():
        raise _RowProblem("blank-line", "found a blank line, which Bedrock can't parse; remove it")
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        message = (
            f"found byte 0x{line[error.start]:02x} at {error.start}, which is no UTF-8; save it as UTF-8"
        )
        raise _RowProblem("encoding", message) from None
    except json.JSONDecodeError as error:
        raise _RowProblem("json", f"{error.msg} at character {error.pos}; expected one JSON object") from None
    except (ValueError, RecursionError) as error:
        raise _RowProblem("json", f"{type(error).__name__}; expected one plain JSON object") from None


def _only_text(value: Any, where: str) -> str:
    """The text of `[{"text": ...}]`."""
    if type(value) is not list or len(value) != 1 or type(value[0]) is not dict:
        found = f"{len(value)} items" if type(value) is list else _named(value)
        raise _RowProblem("text", f"{where}: found {found}, expected exactly one {{'text': ...}}")
    if value[0].keys() != {"text"}:
        _refuse_keys(value[0], {"text"}, where)
    text = value[0]["text"]
    if type(text) is not str:
        raise _RowProblem("text", f"{where}: found {_named(text)}, expected a string")
    if not text.strip():
        raise _RowProblem("text", f"{where}: found an empty text; fill it or remove the row")
    return text


def _check_text(text: str) -> None:
    if word := reserved_word(text):
        message = f"found {word!r}, a reserved word on which the job fails; reword or remove the row"
        raise _RowProblem("reserved-word", message)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            message = f"found half of a surrogate pair in {_shown(text)}; write the whole character"
            raise _RowProblem("encoding", message) from None


def _refuse_keys(found: dict[str, Any], expected: set[str], where: str) -> None:
    missing = sorted(expected - found.keys())
    extra = sorted(found.keys() - expected)
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    if extra:
        parts.append(f"has {', '.join(_shown(key) for key in extra[:3])}")
    message = f"{where} {' and '.join(parts)}; expected {', '.join(sorted(expected))} only"
    raise _RowProblem("keys", message)


def _shown(value: object) -> str:
    """A value, short and printable: repr() escapes lone surrogates."""
    if not isinstance(value, str):
        return _named(value)
    return repr(value) if len(value) <= 48 else f"{value[:45]!r}..."


def _named(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
