"""Check the rules for lines of any text file: encoding, line ends, length, JSON and characters."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from distilled_router.data.findings import Finding, Report, Severity
from distilled_router.task.task import reserved_word

# About the 32k tokens of context of fine-tuning, at four bytes each.
MAX_LINE_BYTES = 131_072

_MARK = b"\xef\xbb\xbf"  # Excel and Notepad write it before UTF-8 text

_FOREIGN = (
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"\x1f\x8b", "gzip", "unpack it"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
)
# All except tab, line feed and carriage return, which pasted text contains.
_ASCII_CONTROL = bytes([*range(9), 11, 12, *range(14, 32), 127])
_CONTROL = re.compile(f"[{re.escape(_ASCII_CONTROL.decode())}\x80-\x9f]")


class LineProblem(Exception):  # noqa: N818 - an expected outcome, which becomes a finding
    """A line breaks a rule. The message says how to correct it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class TextFile:
    """A file that is being read. Counts lines and bytes, and adds findings under its name to a report."""

    def __init__(self, name: str, report: Report) -> None:
        self.lines = 0
        self.size = 0
        self.is_text = True
        self._name = name
        self._report = report

    def read(self, content: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield the file's lines, numbered from 1; none if it is not UTF-8 text.

        They come without line ends, CRLF as well, and without a byte order mark.
        """
        number = returns = first = 0
        for number, line in enumerate(content, start=1):
            self.size += len(line) if line.endswith(b"\n") else len(line) + 1
            text = line.removesuffix(b"\n")
            if number == 1:
                if text.startswith(_MARK):
                    text = text.removeprefix(_MARK)
                    self.found(1, "encoding", "found a byte order mark; it is left out", "warning")
                if problem := _foreign(text):
                    # Findings of further lines would say less.
                    self.is_text = False
                    self.found(None, "encoding", problem)
                    return
            if text.endswith(b"\r"):
                text = text[:-1]
                returns += 1
                first = first or number
            self.lines = number
            yield number, text
        if not number:
            self.found(None, "empty", "found no line; is it the right file?")
        if returns:
            message = f"found CRLF in {returns} lines; it is read as LF"
            self.found(first, "line-end", message, "warning")

    def found(self, line: int | None, rule: str, message: str, severity: Severity = "error") -> None:
        """Add a finding to the report."""
        self._report.add(Finding(self._name, line, rule, message, severity))

    def refuse(self, line: int, problems: Iterable[LineProblem]) -> None:
        """Add an error to the report for each problem of a line."""
        for problem in problems:
            self.found(line, problem.rule, str(problem))


def lines(chunks: Iterable[bytes], longest: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """Split chunks into lines with their line ends, keeping at most a chunk and `longest` bytes in memory.

    A longer line is cut after `longest` + 1 bytes, so the rules report it as too long.
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


class Mending:
    """Mends a file's content chunk by chunk: no byte order mark, and LF for CRLF, as `TextFile` reads it."""

    def __init__(self) -> None:
        self._is_first, self._rest = True, b""

    def mend(self, chunk: bytes, *, is_last: bool = False) -> bytes:
        """Return the mended content, up to the end of the chunk or a few bytes before it."""
        text = self._rest + chunk
        self._rest = b""
        if self._is_first:
            if len(text) < len(_MARK) and not is_last:
                self._rest = text
                return b""
            self._is_first = False
            text = text.removeprefix(_MARK)
        if text.endswith(b"\r") and not is_last:
            text, self._rest = text[:-1], b"\r"
        return text.replace(b"\r\n", b"\n")


def decoded(line: bytes) -> str:
    """Return a line's text. Raises LineProblem if it is too long or not UTF-8."""
    if len(line) > MAX_LINE_BYTES:
        message = f"more than {MAX_LINE_BYTES} bytes; one row per line, and short ones"
        raise LineProblem("line-length", message)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        found = f"found byte 0x{line[error.start]:02x} at {error.start}"
        raise LineProblem("encoding", f"{found}, which is not UTF-8; save it as UTF-8") from None


def loaded(line: bytes) -> Any:
    """Return a line's JSON value. Raises LineProblem if it is not plain JSON."""
    text = decoded(line)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LineProblem("json", f"{error.msg} at character {error.pos}; expected one JSON object") from None
    except (ValueError, RecursionError) as error:
        raise LineProblem("json", f"{type(error).__name__}; expected one plain JSON object") from None


def text_problems(text: str) -> list[LineProblem]:
    """Return what is wrong with a text: reserved words, control characters and lone surrogates."""
    problems = []
    if word := reserved_word(text):
        message = f"found {word!r}, a reserved word on which the job fails; reword or remove the row"
        problems.append(LineProblem("reserved-word", message))
    if text.isascii():
        plain = text.encode()
        if len(plain.translate(None, _ASCII_CONTROL)) == len(plain):
            return problems  # ten times faster than the search, and enough for nearly every text
    elif text.isprintable():
        return problems
    if control := _CONTROL.search(text):
        message = f"found the control character {control.group()!r} in {shown(text)}; remove it"
        problems.append(LineProblem("control-character", message))
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"found half of a surrogate pair in {shown(text)}; write the whole character"
        problems.append(LineProblem("encoding", message))
    return problems


def shown(value: object) -> str:
    """Return a value as short, printable text: repr() escapes lone surrogates."""
    if not isinstance(value, str):
        return named(value)
    return repr(value) if len(value) <= 48 else f"{value[:45]!r}..."


def named(value: object) -> str:
    """Return the name of the JSON value's type."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _foreign(line: bytes) -> str | None:
    for magic, what, remedy in _FOREIGN:
        if line.startswith(magic):
            return f"found {what}, expected plain UTF-8 text; {remedy}"
    if b"\r" in line.rstrip(b"\r"):
        return "found CR as line end (old Macintosh), expected LF; save it as CSV UTF-8, or convert it"
    if b"\x00" in line[:200]:
        return "found NUL bytes (UTF-16 text or binary data), expected plain UTF-8 text; save it as UTF-8"
    return None
