"""Check the rules for a row of a data set: its structure, prompt, query and answer."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched, chain
from typing import Any, NamedTuple

from distilled_router.data.conversation import COUNT, SCHEMA_VERSION
from distilled_router.data.line_rules import MAX_LINE_BYTES, LineProblem, loaded, named, shown, text_problems
from distilled_router.task.parsing import InvalidOutput
from distilled_router.task.task import Task

_ROW_KEYS = {"schemaVersion", "system", "messages"}
_MESSAGE_KEYS = {"role", "content"}
_TEXT_KEYS = {"text"}
_ROLES = ("user", "assistant")
# Number of strings of a row, keys and values: with an answer, and without.
_STRINGS = (16, 11)
_value = json.JSONDecoder().raw_decode
_REMEMBERED_ANSWERS = 10_000
_LONGEST_REMEMBERED = 200


class Row(NamedTuple):
    """What was read of a row, and everything that is wrong with it."""

    query: str | None
    answer: str | None
    problems: list[LineProblem]


class RowReader:
    """Reads rows of one task and checks them."""

    def __init__(self, task: Task, *, may_lack_labels: bool, may_have_count: bool = False) -> None:
        self.task = task
        self._may_lack_labels = may_lack_labels
        self._may_have_count = may_have_count
        self._form: list[str] = []  # of the last parsed row: the text before, between and after its texts
        self._answers: dict[str, tuple[str | None, frozenset[str]]] = {}  # results of checks: answers repeat

    def read(self, line: bytes) -> Row:
        """Return a row and its problems."""
        row = self._as_before(line) or self._parsed(line)
        query, answer, problems = row
        if query is not None:
            problems += text_problems(query)
        if answer is not None and (problem := self._checked(answer)[0]):
            problems.append(LineProblem("label", problem))
        return row

    def dominants(self, answer: str) -> frozenset[str]:
        """Return the labels that share the largest weight of a valid answer."""
        return self._checked(answer)[1]

    def _as_before(self, line: bytes) -> Row | None:
        """Return query and answer of a row that equals an earlier one except for these, or None.

        Most rows do. Only two strings are left to read, and no parser is needed to check the rest, which
        takes a third of the time.
        """
        if not self._form or len(line) > MAX_LINE_BYTES:
            return None
        *pieces, end = self._form
        texts, place = [], 0
        try:
            row = line.decode()
            for piece in pieces:
                if not row.startswith(piece, place):
                    return None
                text, place = _value(row, place + len(piece))
                if type(text) is not str or not text.strip():
                    return None
                texts.append(text)
        except (ValueError, RecursionError):
            return None
        if row[place:] != end:
            return None
        return Row(texts[0], texts[1] if len(texts) == 2 else None, [])

    def _parsed(self, line: bytes) -> Row:
        """Return any row, by parsing it, with the problems of its structure."""
        if not line.strip():
            problem = LineProblem("blank-line", "found a blank line, which Bedrock can't parse; remove it")
            return Row(None, None, [problem])
        try:
            found = loaded(line)
        except LineProblem as error:
            return Row(None, None, [error])
        if type(found) is not dict:
            message = f"found {named(found)}, expected one JSON object per line"
            return Row(None, None, [LineProblem("json", message)])
        problems: list[LineProblem] = []
        query, answer = self._texts(found, problems)
        row = line.decode()
        spots = list(_strings(row))
        most = _STRINGS[answer is None] + (COUNT in found)
        if (problems or len(spots) > most) and _has_key_twice(row):
            # Python takes the last of two values; another reader may take the first.
            problems.append(LineProblem("keys", "a key occurs twice in an object; keep one"))
        if not problems and query is not None:
            self._remember_form(row, [query] if answer is None else [query, answer], spots)
        return Row(query, answer, problems)

    def _remember_form(self, row: str, wanted: Sequence[str], spots: Sequence[tuple[str, int, int]]) -> None:
        spots = [spot for spot in spots if spot[0] in wanted]
        if [text for text, *_ in spots] == wanted:
            edges = [0, *chain.from_iterable(places for _, *places in spots), len(row)]
            self._form = [row[start:end] for start, end in batched(edges, 2)]

    def _texts(self, row: Mapping[str, Any], problems: list[LineProblem]) -> tuple[str | None, str | None]:
        """Return query and answer of a parsed row, and add the problems of its structure."""
        allowed = _ROW_KEYS | {COUNT} if self._may_have_count and COUNT in row else _ROW_KEYS
        _check_keys(row, allowed, "a row", problems)
        if "schemaVersion" in row and row["schemaVersion"] != SCHEMA_VERSION:
            message = f"found {shown(row['schemaVersion'])}, expected {SCHEMA_VERSION!r}"
            problems.append(LineProblem("schema-version", message))
        if self._may_have_count and COUNT in row and not _is_count(row[COUNT]):
            message = f"{COUNT}: found {shown(row[COUNT])}, expected a number above 0"
            problems.append(LineProblem("count", message))
        system = _only_text(row["system"], "system", problems) if "system" in row else None
        if system is not None and system != self.task.student_prompt:
            message = (
                f"found {shown(system)}, expected the task's student prompt, character by character;"
                f" the router uses that one"
            )
            problems.append(LineProblem("system", message))
        query, *answers = _messages(row["messages"], problems) if "messages" in row else [None, None]
        if not answers and not self._may_lack_labels:
            message = "found no answer, expected an assistant message with the weights"
            problems.append(LineProblem("label", message))
        return query, answers[0] if answers else None

    def _checked(self, answer: str) -> tuple[str | None, frozenset[str]]:
        if answer in self._answers:
            return self._answers[answer]
        checked = self._check(answer)
        if len(self._answers) < _REMEMBERED_ANSWERS and len(answer) < _LONGEST_REMEMBERED:
            self._answers[answer] = checked
        return checked

    def _check(self, answer: str) -> tuple[str | None, frozenset[str]]:
        """Return what is wrong with an answer, or None, and its largest labels."""
        try:
            weights = self.task.parse(answer)
        except InvalidOutput as error:
            return f"{error}; expected {', '.join(self.task.labels)} with a sum of 1", frozenset()
        written = self.task.render(weights)
        dominants = frozenset(self.task.dominants(weights))
        if answer == written or self.task.written_as_asked(answer):
            return None, dominants
        # The student learns the format, and the router limits its tokens.
        return f"found {shown(answer)}, expected exactly {written!r}", dominants


def _strings(row: str) -> Iterator[tuple[str, int, int]]:
    """Yield all strings of a row of valid JSON, keys and values, with start and end, quotes included."""
    start = row.find('"')
    while start >= 0:
        text, end = _value(row, start)
        yield text, start, end
        start = row.find('"', end)


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _has_key_twice(row: str) -> bool:
    twice = False

    def check(pairs: list[tuple[str, Any]]) -> None:
        nonlocal twice
        twice |= len({key for key, _ in pairs}) < len(pairs)

    json.loads(row, object_pairs_hook=check)
    return twice


def _messages(messages: Any, problems: list[LineProblem]) -> list[str | None]:
    """Return the text of each message, the user's first; None where there is none."""
    if type(messages) is not list or not 1 <= len(messages) <= 2:
        found = f"{len(messages)} items" if type(messages) is list else named(messages)
        message = f"found {found}, expected one user and one assistant message"
        problems.append(LineProblem("messages", message))
        if type(messages) is not list or not messages:
            return [None, None]
    return [_message(role, found, problems) for role, found in zip(_ROLES, messages, strict=False)]


def _message(role: str, message: Any, problems: list[LineProblem]) -> str | None:
    """Return a message's text, or None if there is none."""
    if type(message) is not dict:
        found = f"found {named(message)}, expected a message with role and content"
        problems.append(LineProblem("messages", found))
        return None
    _check_keys(message, _MESSAGE_KEYS, "a message", problems)
    if "role" in message and message["role"] != role:
        found = f"found {shown(message['role'])}, expected {role!r}: user, then assistant"
        problems.append(LineProblem("role", found))
    text = _only_text(message["content"], f"{role} content", problems) if "content" in message else None
    # The query of a row with swapped roles is no answer.
    return None if role != message.get("role") in _ROLES else text


def _only_text(value: Any, where: str, problems: list[LineProblem]) -> str | None:
    """Return the text of `[{"text": ...}]`, or None if there is none."""
    if type(value) is not list or len(value) != 1 or type(value[0]) is not dict:
        found = f"{len(value)} items" if type(value) is list else named(value)
        message = f"{where}: found {found}, expected exactly one {{'text': ...}}"
        problems.append(LineProblem("text", message))
        return None
    _check_keys(value[0], _TEXT_KEYS, where, problems)
    if "text" not in value[0]:
        return None
    text = value[0]["text"]
    if type(text) is str and text.strip():
        return text
    found = (
        "an empty string; fill it or remove the row"
        if type(text) is str
        else f"{named(text)}, expected a string"
    )
    problems.append(LineProblem("text", f"{where}: found {found}"))
    return None


def _check_keys(
    found: Mapping[str, Any], expected: set[str], where: str, problems: list[LineProblem]
) -> None:
    if found.keys() == expected:
        return
    missing = sorted(expected - found.keys())
    extra = sorted(found.keys() - expected)
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    if extra:
        parts.append(f"has {', '.join(shown(key) for key in extra[:3])}")
    message = f"{where} {' and '.join(parts)}; expected {', '.join(sorted(expected))} only"
    problems.append(LineProblem("keys", message))
