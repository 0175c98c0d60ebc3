"""Check the rules for a row of a data set: its structure, prompt, query and answer."""

from collections.abc import Iterator
from itertools import batched, chain
from json import JSONDecoder
from typing import Any

from distilled_router.data.conversation import SCHEMA_VERSION
from distilled_router.data.line_rules import MAX_LINE_BYTES, LineProblem, check_text, loaded, named, shown
from distilled_router.task.parsing import InvalidOutput
from distilled_router.task.task import Task

_ROW_KEYS = {"schemaVersion", "system", "messages"}
_MESSAGE_KEYS = {"role", "content"}
_TEXT_KEYS = {"text"}
_ROLES = ("user", "assistant")
# Number of strings of a row, keys and values: with an answer, and without.
_STRINGS = (16, 11)
_value = JSONDecoder().raw_decode
_REMEMBERED_ANSWERS = 10_000
_LONGEST_REMEMBERED = 200


class RowReader:
    """Reads rows of one task and checks them."""

    def __init__(self, task: Task, *, may_lack_labels: bool) -> None:
        self.task = task
        self._may_lack_labels = may_lack_labels
        self._form: list[str] = []  # of the last parsed row: the text before, between and after its texts
        self._answers: dict[str, tuple[str | None, frozenset[str]]] = {}  # results of checks: answers repeat

    def read(self, line: bytes) -> tuple[str, str | None]:
        """Return query and answer of a row. Raises LineProblem if the row breaks a rule."""
        query, answer = self._as_before(line) or self._parsed(line)
        check_text(query)
        if answer is not None and (problem := self._checked(answer)[0]):
            raise LineProblem("label", problem)
        return query, answer

    def dominants(self, answer: str) -> frozenset[str]:
        """Return the labels that share the largest weight of a valid answer."""
        return self._checked(answer)[1]

    def _as_before(self, line: bytes) -> tuple[str, str | None] | None:
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
        return texts[0], texts[1] if len(texts) == 2 else None

    def _parsed(self, line: bytes) -> tuple[str, str | None]:
        """Return query and answer of any row, by parsing it."""
        if not line.strip():
            raise LineProblem("blank-line", "found a blank line, which Bedrock can't parse; remove it")
        query, answer = self._texts(loaded(line))
        row = line.decode()
        spots = list(_strings(row))
        if len(spots) > _STRINGS[answer is None]:
            # Python takes the last of two values; another reader may take the first.
            raise LineProblem("keys", "a key occurs twice in an object; keep one")
        wanted = [query] if answer is None else [query, answer]
        spots = [spot for spot in spots if spot[0] in wanted]
        if [text for text, *_ in spots] == wanted:
            edges = [0, *chain.from_iterable(places for _, *places in spots), len(row)]
            self._form = [row[start:end] for start, end in batched(edges, 2)]
        return query, answer

    def _texts(self, row: Any) -> tuple[str, str | None]:
        """Return query and answer of a parsed row. Raises LineProblem for another structure."""
        if type(row) is not dict:
            raise LineProblem("json", f"found {named(row)}, expected one JSON object per line")
        if row.keys() != _ROW_KEYS:
            _refuse_keys(row, _ROW_KEYS, "a row")
        if row["schemaVersion"] != SCHEMA_VERSION:
            message = f"found {shown(row['schemaVersion'])}, expected {SCHEMA_VERSION!r}"
            raise LineProblem("schema-version", message)
        system = _only_text(row["system"], "system")
        if system != self.task.student_prompt:
            message = (
                f"found {shown(system)}, expected the task's student prompt, character by character;"
                f" the router uses that one"
            )
            raise LineProblem("system", message)
        query, *answers = _messages(row["messages"])
        if answers:
            return query, answers[0]
        if not self._may_lack_labels:
            raise LineProblem("label", "found no answer, expected an assistant message with the weights")
        return query, None

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


def _messages(messages: Any) -> Iterator[str]:
    """Yield the text of each message, the user's first."""
    if type(messages) is not list or not 1 <= len(messages) <= 2:
        found = f"{len(messages)} items" if type(messages) is list else named(messages)
        raise LineProblem("messages", f"found {found}, expected one user and one assistant message")
    for role, message in zip(_ROLES, messages, strict=False):
        if type(message) is not dict:
            found = named(message)
            raise LineProblem("messages", f"found {found}, expected a message with role and content")
        if message.keys() != _MESSAGE_KEYS:
            _refuse_keys(message, _MESSAGE_KEYS, "a message")
        if message["role"] != role:
            found = shown(message["role"])
            raise LineProblem("role", f"found {found}, expected {role!r}: user, then assistant")
        yield _only_text(message["content"], f"{role} content")


def _only_text(value: Any, where: str) -> str:
    """Return the text of `[{"text": ...}]`."""
    if type(value) is not list or len(value) != 1 or type(value[0]) is not dict:
        found = f"{len(value)} items" if type(value) is list else named(value)
        raise LineProblem("text", f"{where}: found {found}, expected exactly one {{'text': ...}}")
    if value[0].keys() != _TEXT_KEYS:
        _refuse_keys(value[0], _TEXT_KEYS, where)
    text = value[0]["text"]
    if type(text) is not str:
        raise LineProblem("text", f"{where}: found {named(text)}, expected a string")
    if not text.strip():
        raise LineProblem("text", f"{where}: found an empty string; fill it or remove the row")
    return text


def _refuse_keys(found: dict[str, Any], expected: set[str], where: str) -> None:
    missing = sorted(expected - found.keys())
    extra = sorted(found.keys() - expected)
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    if extra:
        parts.append(f"has {', '.join(shown(key) for key in extra[:3])}")
    message = f"{where} {' and '.join(parts)}; expected {', '.join(sorted(expected))} only"
    raise LineProblem("keys", message)
