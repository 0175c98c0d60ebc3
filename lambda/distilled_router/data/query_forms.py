"""Recognise the form of a file of raw queries: lines of text, a table, or JSON objects.

Logs are exported as tables: `query<TAB>count`, CSV with a header, or the output of `uniq -c`. Read as lines
of text, the count would become part of the query that the teacher is paid to label.
"""

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from distilled_router.data.counts import count_of, is_number, value_of
from distilled_router.data.line_rules import LineProblem, decoded, loaded, named, shown

# Lines that decide the form of a file.
SAMPLE = 100
# Part of these lines that must fit a table; some lines of a log are broken.
_FITTING = 0.9
# The first line of a spreadsheet's export may name the separator.
DIRECTIVE = re.compile(rb"sep=.")
QUERY = "query"
COUNTS = ("count", "weight", "frequency", "hits", "searches", "impressions")
"""Names of columns with the number of times that a query was asked, the first ones preferred."""

_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
# Endings of names of columns that number or date the rows; pandas leaves the name of its index empty.
_NO_COUNTS = re.compile(r"|(.*[\W_])?(id|index|no|nr|number|year|date|timestamp|rank|position)")
# `uniq -c` without its padding, or lines that begin with a number.
_COUNTED = re.compile(r"([0-9]+)\s+\S")
_LEAST_COUNTED = 20
# Names in a message, and keys of an object that are looked at for them.
_MOST_NAMES = 5
# `uniq -c` pads the count to seven places (GNU coreutils).
_UNIQ = re.compile(r"(?= [ 0-9]{6}|[0-9]{7}) *([0-9]+) (.*)", re.DOTALL)
_REMEDY = f"Put names in the first line: {QUERY} for the queries and {COUNTS[0]} for their counts"


@dataclass(frozen=True)
class Lines:
    """A file with one query per line. If they `may_have_counts`, nearly all begin with a number."""

    has_header: bool = False
    may_have_counts: bool = False

    def read(self, line: bytes) -> tuple[str, float]:
        """Return the query, and how often it was asked."""
        query = decoded(line).strip()
        if query.startswith("{") and query.endswith("}"):
            message = f"found a JSON object ({shown(query)}) in a .txt file; name the file .jsonl"
            raise LineProblem("file-kind", message)
        if "\t" in query and any(map(is_number, query.split("\t"))):
            message = f"found a number next to a tab ({shown(query)}), unlike in most lines; remove it"
            raise LineProblem("columns", message)
        return query, 1

    def __str__(self) -> str:
        if not self.may_have_counts:
            return ""
        return (
            "a number at the start of nearly every line, which is taken as a part of the query; put a tab "
            "after it if it is the query's count, or remove it"
        )


@dataclass(frozen=True)
class Uniq:
    """The output of `uniq -c`: a count and a query in each line."""

    has_header: bool = False

    def read(self, line: bytes) -> tuple[str, float]:
        """Return the query, and how often it was asked."""
        found = _UNIQ.fullmatch(decoded(line))
        if not found:
            raise LineProblem("columns", f"found {shown(decoded(line))}, expected a count and a query")
        return found[2].strip(), count_of(found[1], "the count")

    def __str__(self) -> str:
        return "counts before the queries, as uniq -c writes them; they are the queries' traffic"


@dataclass(frozen=True)
class Table:
    """A table with a query in each line. `names` are those of its columns, from its header or invented."""

    delimiter: str
    names: Sequence[str]
    query: int
    count: int | None = None
    has_header: bool = False

    def read(self, line: bytes) -> tuple[str, float]:
        """Return the query, and how often it was asked."""
        text = decoded(line)
        cells = _cells(text, self.delimiter)
        while len(cells) > len(self.names) and not cells[-1].strip():
            cells.pop()  # spreadsheets write separators for empty cells
        if _is_open(text, self.delimiter):
            message = (
                f"found a quote that does not end in its line ({shown(text)}); write each query in one line"
            )
            raise LineProblem("columns", message)
        if len(cells) != len(self.names):
            message = (
                f"found {len(cells)} columns in {shown(text)}, expected {len(self.names)}; write a query "
                "with a separator in double quotes, or remove the line"
            )
            raise LineProblem("columns", message)
        query = cells[self.query].strip()
        return query, 1 if self.count is None else count_of(cells[self.count], self.names[self.count])

    def __str__(self) -> str:
        read = [f"queries from {self.names[self.query]}"]
        if self.count is not None:
            read.append(f"their traffic from {self.names[self.count]}")
        used = {self.query, self.count}
        others = [name for place, name in enumerate(self.names) if place not in used]
        left_out = f"; left out: {', '.join(others[:5])}" if others else ""
        return f"a table separated by {_NAMES[self.delimiter]}; {' and '.join(read)}{left_out}"


class Objects:
    """JSON objects with a string `query`, one per line. Their first count says from where counts are read."""

    has_header = False

    def __init__(self, labels: Collection[str]) -> None:
        self._labels = labels
        self.counted = ""
        self._unread: set[str] = set()  # names of other numbers

    def read(self, line: bytes) -> tuple[str, float]:
        """Return the query, and how often it was asked."""
        row = loaded(line)
        if type(row) is not dict:
            raise LineProblem("json", f"found {named(row)}, expected an object with a string 'query'")
        if QUERY not in row:
            labelled = "; this is a row for given labels" if "messages" in row else ""
            raise LineProblem("keys", f"found an object without 'query', expected one with it{labelled}")
        if type(row[QUERY]) is not str:
            raise LineProblem("text", f"query: found {named(row[QUERY])}, expected a string")
        _refuse_labels(row, self._labels)
        return row[QUERY].strip(), self._count(row)

    def _count(self, row: Mapping[str, Any]) -> float:
        for name in COUNTS:
            if _is_numeric(row.get(name)):
                count = count_of(row[name], name)
                self.counted = self.counted or name
                return count
        if row.get(COUNTS[0]) is not None:
            found = named(row[COUNTS[0]])
            raise LineProblem("count", f"{COUNTS[0]}: found {found}, expected a number above 0")
        for name, value in islice(row.items(), _MOST_NAMES):
            if (
                len(self._unread) < _MOST_NAMES
                and _is_numeric(value)
                and not _NO_COUNTS.fullmatch(_plain(name))
            ):
                self._unread.add(name)
        return 1

    def __str__(self) -> str:
        if self.counted:
            return f"counts; the queries' traffic is read from {self.counted}"
        names = ", ".join(map(shown, sorted(self._unread)))
        return (
            f"numbers in {names}, which are ignored; name the queries' traffic {COUNTS[0]}" if names else ""
        )


type Form = Lines | Uniq | Table | Objects


def form_of(name: str, sample: Sequence[bytes], labels: Collection[str]) -> Form:
    """Return the form of a file, given its name and first lines.

    Raises:
        LineProblem: The file is a table whose columns can't be told, or that holds labels.
    """
    name = name.lower()
    if name.endswith(".jsonl"):
        return Objects(labels)
    texts = [line.decode(errors="replace") for line in sample if line.strip()]
    if not texts:
        return Lines()
    fitting = sum(_UNIQ.fullmatch(text) is not None for text in texts)
    if len(texts) > 1 and fitting >= _FITTING * len(texts):
        return Uniq()
    for delimiter in _NAMES:
        rows = _rows(texts, delimiter)
        if rows and (table := _table(rows, delimiter, labels)):
            return table
    if not name.endswith((".csv", ".tsv")):
        counts = [[found[1]] for text in texts if (found := _COUNTED.match(text))]
        are_many = len(texts) >= _LEAST_COUNTED and len(counts) >= _FITTING * len(texts)
        return Lines(may_have_counts=are_many and not _are_consecutive(counts, 0))
    if _plain(texts[0]) == QUERY:
        return Table(",", [QUERY], 0, has_header=True)
    raise LineProblem("columns", f"found no column with the name {QUERY}. {_REMEDY}")


def _rows(texts: Sequence[str], delimiter: str) -> list[list[str]]:
    """Return the rows of a table with two or more columns; none if the lines are not such a table."""
    first, *rest = _without_empty_columns([_cells(text, delimiter) for text in texts])
    if len(first) > 1 and QUERY in map(_plain, first):
        return [first, *(row[: len(first)] for row in rest if len(row) >= len(first))]
    width, fitting = Counter(map(len, rest)).most_common(1)[0] if rest else (0, 0)
    # A first line of another width may be a comment, or sentences may happen to have as many commas.
    if width < 2 or fitting < _FITTING * len(rest) or (len(first) != width and len(rest) < 2):
        return []
    return [first, *(row for row in rest if len(row) == width)]


def _without_empty_columns(rows: Sequence[list[str]]) -> list[list[str]]:
    """Return rows without the last columns if they are empty everywhere."""
    width = max(map(len, rows))
    while width and not any(row[width - 1].strip() for row in rows if len(row) >= width):
        width -= 1
    return [row[:width] for row in rows]


def _table(rows: Sequence[Sequence[str]], delimiter: str, labels: Collection[str]) -> Table | None:
    """Return the table; None if these are more likely sentences with commas.

    Raises:
        LineProblem: It is a table, but its columns can't be told, or it holds labels.
    """
    header, *rest = rows
    names = [_plain(cell) for cell in header]
    width = len(rest[0]) if rest else len(header)
    numbers = [
        place
        for place in range(width)
        if rest and sum(is_number(row[place]) for row in rest) >= _FITTING * len(rest)
    ]
    if not numbers and QUERY not in names and delimiter != "\t":
        return None
    is_whole = len(header) == width
    has_header = is_whole and (QUERY in names or not all(is_number(header[place]) for place in numbers))
    if has_header:
        _refuse_labels(names, labels)
    texts = [place for place in range(width) if place not in numbers]
    known = [names.index(name) for name in COUNTS if has_header and name in names]
    numbering = (
        is_whole
        and len(numbers) == 1
        and (
            (has_header and _NO_COUNTS.fullmatch(names[numbers[0]]) is not None)
            or (numbers < texts and _are_consecutive(rest if has_header else rows, numbers[0]))
        )
    )
    count = known[0] if known else numbers[0] if len(numbers) == 1 and not numbering else None
    if is_whole and QUERY in names:
        query = names.index(QUERY)
        count = None if count == query else count
    elif is_whole and len(texts) == 1 and (count is not None or numbering):
        query = texts[0]
    else:
        found = ", ".join(shown(cell.strip()) for cell in header[:5])
        message = f"found a table separated by {_NAMES[delimiter]}, whose first line is {found}. {_REMEDY}"
        raise LineProblem("columns", message)
    titles = [
        shown(cell.strip()) if has_header else f"column {place}" for place, cell in enumerate(header, 1)
    ]
    return Table(delimiter, titles, query, count, has_header)


def _are_consecutive(rows: Sequence[Sequence[str]], place: int) -> bool:
    """Return whether a column numbers the rows."""
    found = [value_of(row[place]) for row in rows]
    steps = (one is not None and other == one + 1 for one, other in pairwise(found))
    return len(found) > 2 and all(steps)


def _is_numeric(value: Any) -> bool:
    """Return whether a JSON value is a number, or text that is one. True and false are numbers in Python."""
    if isinstance(value, str):
        return is_number(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_open(text: str, delimiter: str) -> bool:
    """Return whether a quoted cell goes on in the next line."""
    if delimiter == "\t" or text.count('"') % 2 == 0:
        return False
    try:
        next(csv.reader([text], delimiter=delimiter, strict=True), None)
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _cells(text: str, delimiter: str) -> list[str]:
    """Return the cells of a line. Text between tabs is seldom quoted, so a quote may be part of a query."""
    if delimiter == "\t":
        return [_unquoted(cell) for cell in text.split("\t")]
    try:
        return next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:
        return [text]


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _plain(cell: str) -> str:
    return _unquoted(cell.strip()).strip().casefold()


def _refuse_labels(row: Collection[str], labels: Collection[str]) -> None:
    """Raise LineProblem if a query has labels: the teacher would be paid to give it others."""
    found = [name for name in ("messages", "weights") if name in row]
    if found or all(label in row for label in labels):
        message = (
            f"found {found[0] if found else ', '.join(labels)} next to the query, which the teacher would be "
            'paid to label again; write rows with them and set dataset.labels = "given", or remove them'
        )
        raise LineProblem("labels", message)
