"""Forms of labelled rows that other teams have, and how a query and its weights are read from each.

A form reads the first rows, decides where queries and answers are, and then yields every row. What it
decided by itself is told. An answer is what a model said, so the task reads it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, cast

from distilled_router.data.counts import count_of
from distilled_router.data.invocation_logs import LeftOut, Selection, model_of, query_in
from distilled_router.data.labelling_plan import QUERY_MARK
from distilled_router.data.line_rules import LineProblem, loaded, named
from distilled_router.data.query_forms import COUNTS, DIRECTIVE
from distilled_router.task.task import InvalidOutput, Task
from operate.errors import OperateError

NO_ANSWER = "rows without an answer"
NO_WEIGHTS = "answers without the task's weights"
# Rows that decide where queries and answers are.
SAMPLE = 1_000
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Names in a message.
_MOST_NAMES = 8
_REASONS = {
    "json": "lines that are not JSON",
    "encoding": "text that is not UTF-8",
    "line-length": "lines of more than 131,072 bytes",
}
_PROMPT_ROLES = ("system", "developer")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user says about a file.

    Attributes:
        task: reads the answers, and has the longest query.
        query: column or key of the queries; empty to guess it.
        answer: column or key of the answers; empty to guess it.
        label: column or key that has one label's name, which gets the weight 1; empty if none has.
        count: column or key that says how often a query was asked; empty if none is wanted.
        template: the text around the query, such as `Query: {query}`.
        teacher: the model whose logged answers count; empty to guess it.
        filters: request metadata that a logged request must have.
        may_lack_answers: whether rows without an answer are kept.
    """

    task: Task
    query: str = ""
    answer: str = ""
    label: str = ""
    count: str = ""
    template: str = QUERY_MARK
    teacher: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    may_lack_answers: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A query, its weights or why there are none, its traffic, and its row's prompt, which is not used."""

    query: str
    weights: Mapping[str, float] | None = None
    lacks: LeftOut | None = None
    prompt: str = ""
    count: float = 1


type Numbered[T] = tuple[int, T]
type Lines = Iterator[Numbered[bytes]]
type Row = Numbered[Found | LeftOut]
type Record = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """The rows of a file, each with the number of its first line, and what is told before them."""

    rows: Iterator[Row]
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Names:
    """Where the parts of a row are: `labels` are columns of single weights, `prompts` are not used.

    `counts` may be the queries' traffic, which nobody asked for.
    """

    query: str
    answer: str = ""
    label: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    prompts: Sequence[str] = ()
    count: str = ""
    counts: Sequence[str] = ()


def openai(lines: Lines, wanted: Wanted) -> Reading:
    """Read chat fine-tuning rows: `messages`, each with a role and a content."""
    _refuse_names(wanted)
    return Reading(_each(_objects(lines), lambda row: _conversation(row, "messages", wanted)))


def prompt_completion(lines: Lines, wanted: Wanted) -> Reading:
    """Read pairs of a prompt and a completion, under one of their usual names."""
    return _named(
        _objects(lines), wanted, ("prompt", "input", "instruction"), ("completion", "output", "response")
    )


def sagemaker(lines: Lines, wanted: Wanted) -> Reading:
    """Read rows for instruction tuning in SageMaker JumpStart.

    They have `instruction`, `context` and `response`, or a `dialog` of messages.
    """
    sample, rows = _sampled(_objects(lines))
    if any("dialog" in row for _, row in sample if not isinstance(row, LeftOut)):
        _refuse_names(wanted)
        return Reading(_each(rows, lambda row: _conversation(row, "dialog", wanted)))
    return _named(rows, wanted, ("instruction", "context"), ("response",))


def table(lines: Lines, wanted: Wanted) -> Reading:
    """Read a table with a header: a column of queries, and one of answers or one for each label."""
    header, delimiter, rest = _header(lines)
    told = f"The columns are separated by {_DELIMITERS[delimiter]}."
    names = [cell.strip() for cell in header]
    plain = [name.casefold() for name in names]
    if twice := sorted({name for name in plain if name and plain.count(name) > 1}):
        raise OperateError(
            f"The header has {_listed(twice)} more than once.", advice="Give each column another name."
        )
    reading = _named(
        _cells(rest, delimiter, names),
        wanted,
        ("query", "text", "prompt", "question", "utterance"),
        ("answer", "weights", "completion", "response", "output"),
    )
    return replace(reading, told=[told, *reading.told])


def invocation_logs(lines: Lines, wanted: Wanted) -> Reading:
    """Read Bedrock's model invocation logs: the records of one log object, or of several."""
    _refuse_names(wanted)
    if wanted.count:
        raise OperateError(
            "A log has no counts: each of its records is one request.",
            advice='Leave COUNT out. With dataset.source = "invocation_logs", requests are counted.',
        )
    sample, rows = _sampled((number, line) for number, line in lines if line.strip())
    teacher, told = wanted.teacher, []
    if not teacher:
        models = sorted({model for _, line in sample if (model := _model(line))})
        if len(models) > 1 and not wanted.may_lack_answers:
            raise OperateError(
                f"The records are of {len(models)} models: {_listed(models)}.",
                advice="Name the one whose answers count with TEACHER.",
            )
        teacher = models[0] if len(models) == 1 else ""
        if teacher:
            told = [f"The answers are those of {teacher}, the only model in the first records."]
        elif models:
            told = ["No answer is used, since the records are of several models (TEACHER)."]
    selection = Selection(
        task=wanted.task, metadata=wanted.filters, template=wanted.template, teacher=teacher
    )
    return Reading(_each(rows, lambda line: _logged(line, selection)), told)


FORMS: Mapping[str, Callable[[Lines, Wanted], Reading]] = {
    "openai": openai,
    "prompt-completion": prompt_completion,
    "csv": table,
    "sagemaker": sagemaker,
    "invocation-logs": invocation_logs,
}
"""What reads each form, by the form's name."""


def _refuse_names(wanted: Wanted) -> None:
    """Raise OperateError if the user names columns or keys of a form that has none."""
    given = {"QUERY": wanted.query, "ANSWER": wanted.answer, "LABEL": wanted.label}
    if names := [variable for variable, name in given.items() if name]:
        raise OperateError(
            f"Rows of this form have no names for {_listed(names)}.",
            advice="Leave it out; TEMPLATE says where the query is in the user's turn.",
        )


def _each[T](rows: Iterable[Numbered[T | LeftOut]], read: Callable[[T], Found]) -> Iterator[Row]:
    """Yield what is read of each row, or why it is left out."""
    for number, row in rows:
        if isinstance(row, LeftOut):
            yield number, row
            continue
        try:
            yield number, read(row)
        except LeftOut as left:
            yield number, left


def _sampled[T](rows: Iterator[T]) -> tuple[list[T], Iterator[T]]:
    """Return the first rows, and all rows."""
    sample = list(islice(rows, SAMPLE))
    return sample, chain(sample, rows)


# Rows of JSON


def _objects(lines: Lines) -> Iterator[Numbered[Record | LeftOut]]:
    """Yield the objects of JSON Lines."""
    is_first = True
    for number, line in lines:
        if not line.strip():
            continue
        if is_first and line.lstrip().startswith(b"["):
            raise OperateError(
                "The file has a JSON array, expected JSON Lines: one object a line.",
                advice="Convert it first: jq -c '.[]' FILE > rows.jsonl",
            )
        is_first = False
        try:
            row = loaded(line)
        except LineProblem as problem:
            yield number, LeftOut(_REASONS[problem.rule], str(problem))
            continue
        yield number, row if isinstance(row, dict) else LeftOut("lines that are no object", named(row))


def _conversation(row: Record, key: str, wanted: Wanted) -> Found:
    """Read a conversation of one turn of the user, and at most one answer."""
    messages = row.get(key)
    if not isinstance(messages, list) or not messages:
        raise LeftOut(f"rows without {key}")
    turns = [message if isinstance(message, dict) else {} for message in messages]
    prompts = [turn for turn in turns if turn.get("role") in _PROMPT_ROLES]
    talk = [turn for turn in turns if turn.get("role") not in _PROMPT_ROLES]
    roles = [turn.get("role") for turn in talk]
    if roles not in (["user"], ["user", "assistant"]):
        raise LeftOut("conversations of other turns than the user's and its answer", _listed(roles))
    query = _query(_texts(talk[0].get("content")), wanted)
    prompt = "\n".join(chain.from_iterable(_texts(turn.get("content")) for turn in prompts))
    found = _answered(query, _said(talk[1]) if len(talk) > 1 else None, wanted.task, prompt)
    return _counted(found, row, wanted.count)


def _said(turn: Record) -> str | None:
    """Return an answer: its text, or what it gives to the one tool that it calls, as callers ask for JSON.

    `function_call` is the earlier form of `tool_calls` (OpenAI API reference, chat completions).
    """
    calls = turn.get("tool_calls")
    if not calls and (earlier := turn.get("function_call")):
        calls = [{"function": earlier}]
    if isinstance(calls, list) and len(calls) > 1:
        raise LeftOut("answers that call several tools", f"{len(calls)} calls")
    if calls:
        call = calls[0] if isinstance(calls, list) else calls
        function = call.get("function") if isinstance(call, dict) else call
        arguments = function.get("arguments") if isinstance(function, dict) else function
        if not isinstance(arguments, str):
            raise LeftOut("answers that call a tool without arguments", named(arguments))
        return arguments
    return "\n".join(_texts(turn["content"])) if turn.get("content") else None


def _texts(content: Any) -> list[str]:
    """Return the texts of a message, which may be in parts."""
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise LeftOut("messages with more than text")
    return [str(text) for text in texts]


def _logged(line: bytes, selection: Selection) -> Found:
    """Read a record of an invocation log. Another model's query is kept without the answer."""
    try:
        logged = selection.read(line)
    except LeftOut as left:
        return Found(replace(selection, teacher="").read(line).query, lacks=left)
    if logged.weights is None:
        return Found(logged.query, lacks=LeftOut(NO_ANSWER))
    return Found(logged.query, dict(zip(selection.task.labels, logged.weights, strict=True)))


def _model(line: bytes) -> str:
    """Return the id of a record's model; empty if there is none."""
    try:
        return model_of(json.loads(line)["modelId"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


# Tables


def _header(lines: Lines) -> tuple[list[str], str, Lines]:
    """Return a table's header, the separator of its columns, and the lines after it."""
    _, first = next(lines, (0, b""))
    if DIRECTIVE.fullmatch(first):  # such as `sep=;`, which Excel reads
        delimiter, (_, first) = first.decode()[-1], next(lines, (0, b""))
    else:
        delimiter = ""
    text = first.decode(errors="replace")
    if delimiter not in _DELIMITERS:
        try:
            delimiter = csv.Sniffer().sniff(text, "".join(_DELIMITERS)).delimiter
        except csv.Error:  # one column
            delimiter = ","
    return next(csv.reader([text], delimiter=delimiter), []), delimiter, lines


def _cells(lines: Lines, delimiter: str, names: Sequence[str]) -> Iterator[Numbered[Record | LeftOut]]:
    """Yield the cells of each row by the names of the columns. A cell may have line breaks."""
    numbers: list[int] = []

    def texts() -> Iterator[str]:
        for number, line in lines:
            numbers.append(number)
            yield line.decode(errors="surrogateescape") + "\n"

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        numbers.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # A quote that does not end takes all lines after it.
            yield from ((number, LeftOut("lines that are not CSV", str(error))) for number in numbers)
            continue
        if cells is None:
            return
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()  # spreadsheets write separators for empty cells
        if len(cells) == len(names):
            yield numbers[0], dict(zip(names, cells, strict=True))
        elif cells:
            reason = "rows with other columns than the header"
            yield numbers[0], LeftOut(reason, f"{len(cells)} instead of {len(names)}")


# Rows with names: columns of a table, or keys of an object


def _named(
    rows: Iterator[Numbered[Record | LeftOut]],
    wanted: Wanted,
    queries: Sequence[str],
    answers: Sequence[str],
) -> Reading:
    """Read rows whose parts have names, given the usual names of queries and answers."""
    sample, rows = _sampled(rows)
    records = [row for _, row in sample if not isinstance(row, LeftOut)]
    if not records:
        if not sample:
            return Reading(iter(()))
        number, left = sample[0][0], cast("LeftOut", sample[0][1])
        example = f" ({left.example})" if left.example else ""
        raise OperateError(
            f"None of the first {len(sample):,} rows can be used. Line {number}: {left.reason}{example}."
        )
    names = _names(records, wanted, queries, answers)
    return Reading(_each(rows, lambda row: _read(row, names, wanted)), _told(records, names))


def _names(
    records: Sequence[Record], wanted: Wanted, queries: Sequence[str], answers: Sequence[str]
) -> Names:
    """Return where the parts of the rows are.

    Raises:
        OperateError: A name does not exist, or can't be guessed.
    """
    known = {name.strip().casefold(): name for record in records for name in record}
    query, prompts = _chosen_query(records, known, wanted.query, queries)
    return replace(
        _answer_names(known, wanted, answers, query),
        prompts=prompts,
        count=_given(known, wanted.count, "COUNT") if wanted.count else "",
        counts=[known[name] for name in COUNTS if name in known and known[name] != query],
    )


def _answer_names(known: Mapping[str, str], wanted: Wanted, answers: Sequence[str], query: str) -> Names:
    """Return where queries and answers are.

    Raises:
        OperateError: A name does not exist, or can't be guessed.
    """
    labels = {label: known[label] for label in wanted.task.labels if label in known}
    if wanted.label:
        return Names(query, label=_given(known, wanted.label, "LABEL"))
    if wanted.answer:
        return Names(query, _given(known, wanted.answer, "ANSWER"))
    if len(labels) == len(wanted.task.labels):
        return Names(query, labels=labels)
    found = [known[name] for name in answers if name in known and known[name] != query]
    if len(found) > 1:
        raise OperateError(f"Both {_listed(found)} may be the answers.", advice="Name one with ANSWER.")
    if not found and not wanted.may_lack_answers:
        lacking = [label for label in wanted.task.labels if label not in labels]
        some = f", and only {_listed(labels)} of the labels: {_listed(lacking)} are missing" if labels else ""
        raise OperateError(
            f"None of the names {_listed(known.values())} is {_listed(answers, 'or')}{some}.",
            advice="Name the answers with ANSWER, or what has a label's name with LABEL; or keep the "
            "rows for the teacher with WITHOUT_ANSWERS=1.",
        )
    return Names(query, found[0] if found else "")


def _chosen_query(
    records: Sequence[Record], known: Mapping[str, str], given: str, usual: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """Return the name of the queries, and the names of prompts, which are equal in all rows."""
    values = {
        known[name]: {_plain(record.get(known[name])) for record in records}
        for name in usual
        if name in known
    }
    filled = [name for name, found in values.items() if found - {""}]
    if given:
        query = _given(known, given, "QUERY")
        return query, [name for name in filled if name != query and len(values[name]) == 1]
    differing = [name for name in filled if len(values[name]) > 1]
    candidates = filled if len(filled) == 1 else differing
    if len(candidates) == 1:
        return candidates[0], [name for name in filled if name not in candidates]
    found = (
        f"Each of {_listed(filled)} may be the queries"
        if filled
        else f"None of the names {_listed(known.values())} is {_listed(usual, 'or')}"
    )
    raise OperateError(f"{found}.", advice="Name the queries with QUERY. Is it another form (FROM)?")


def _given(known: Mapping[str, str], name: str, variable: str) -> str:
    if (found := known.get(name.strip().casefold())) is None:
        raise OperateError(f"{variable}={name}: there is no such name, only {_listed(known.values())}.")
    return found


def _told(records: Sequence[Record], names: Names) -> list[str]:
    """Return which names were taken, and which were left out."""
    told = [f"The queries are in {names.query}."]
    if names.label:
        told.append(f"A label in {names.label} gets the weight 1, and the others 0.")
    elif names.labels:
        told.append(f"The weights are in {_listed(names.labels.values())}.")
    else:
        told.append(f"The answers are in {names.answer}." if names.answer else "There are no answers.")
    used = {names.query, names.answer, names.label, names.count, *names.labels.values(), *names.prompts}
    if names.count:
        told.append(f"The queries' traffic is in {names.count}; only hold-out rows may have it.")
    known = dict.fromkeys(name for record in records for name in record)
    if others := [name for name in known if name and name not in used]:
        told.append(f"Not used: {_listed(others)}.")
    if not names.count and (counts := [name for name in names.counts if name not in used]):
        told.append(f"{_listed(counts, 'or')} may be the traffic, which hold-out rows may have (COUNT).")
    return told


def _read(row: Record, names: Names, wanted: Wanted) -> Found:
    """Return query, weights and traffic of a row with names."""
    return _counted(_weighed(row, names, wanted), row, names.count)


def _counted(found: Found, row: Record, name: str) -> Found:
    """Return a row with the traffic that the key or column of this name gives; 1 without a name."""
    if not name:
        return found
    value = row.get(name)
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise LineProblem("count", f"{name}: found {named(value)}")
        return replace(found, count=count_of(value, name))
    except LineProblem as problem:
        raise LeftOut("counts that are no numbers above 0", str(problem)) from problem


def _weighed(row: Record, names: Names, wanted: Wanted) -> Found:
    """Return query and weights of a row with names."""
    value = row.get(names.query)
    if value is not None and not isinstance(value, str):
        raise LeftOut("queries that are no text", named(value))
    query = _query([value or ""], wanted)
    prompt = "\n".join(filter(None, (_plain(row.get(name)) for name in names.prompts)))
    if names.label:
        return _labelled(query, row.get(names.label), wanted.task, prompt)
    if names.labels:
        weights = {label: _weight(row.get(name)) for label, name in names.labels.items()}
        given = {label: weight for label, weight in weights.items() if weight not in ("", None)}
        return _answered(query, given or None, wanted.task, prompt)
    return _answered(query, row.get(names.answer), wanted.task, prompt)


def _weight(cell: Any) -> Any:
    """Return a single weight; a comma can only be the decimal one."""
    return cell.strip().replace(",", ".") if isinstance(cell, str) else cell


def _labelled(query: str, cell: Any, task: Task, prompt: str) -> Found:
    """Return a row whose one label has all the weight."""
    label = _plain(cell).casefold()
    if not label:
        return Found(query, lacks=LeftOut(NO_ANSWER), prompt=prompt)
    if label not in task.labels:
        return Found(query, lacks=LeftOut("labels that the task does not have", _plain(cell)), prompt=prompt)
    return Found(query, {each: float(each == label) for each in task.labels}, prompt=prompt)


# Every form


def _query(texts: Sequence[str], wanted: Wanted) -> str:
    try:
        query = query_in(texts, wanted.template, wanted.task)
        query.encode()
    except UnicodeEncodeError as error:
        raise LeftOut(_REASONS["encoding"]) from error
    return query


def _answered(query: str, answer: Any, task: Task, prompt: str = "") -> Found:
    """Return a row with the weights of its answer, which may also be a JSON value."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    if answer is None or not text.strip():
        return Found(query, lacks=LeftOut(NO_ANSWER), prompt=prompt)
    try:
        return Found(query, task.parse(text), prompt=prompt)
    except InvalidOutput as error:
        return Found(query, lacks=LeftOut(NO_WEIGHTS, str(error)), prompt=prompt)


def _plain(value: Any) -> str:
    """Return the text of a cell; also of a value that is none."""
    return "" if value is None else value.strip() if isinstance(value, str) else json.dumps(value)


def _listed(names: Iterable[Any], word: str = "and") -> str:
    """Return names as a part of a sentence."""
    *others, last = [str(name) for name in names]
    if len(others) >= _MOST_NAMES:
        return f"{', '.join(others[:_MOST_NAMES])} and {len(others) + 1 - _MOST_NAMES} more"
    return f"{', '.join(others)} {word} {last}" if others else last
