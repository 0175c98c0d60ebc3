"""Check the rules for raw queries, before a teacher is paid to label them.

A file is text with one query per line (`.txt`), or JSON Lines with a text `query` and possibly more in each
object (`.jsonl`).
"""

from collections.abc import Iterable, Iterator
from math import ceil

from distilled_router.data.conversation import query_key
from distilled_router.data.dataset_rules import ROWS
from distilled_router.data.findings import Finding, Report
from distilled_router.data.line_rules import LineProblem, TextFile, check_text, decoded, loaded, named, shown
from distilled_router.task.task import Task

__all__ = ["MOST_QUERIES", "QueryCheck"]

# This package's limit. A job trains on 20,000 rows at most, so five times as many give curation enough
# choice. One function keeps all of them in memory, to find duplicates and families.
MOST_QUERIES = 100_000
_KINDS = (".txt", ".jsonl")


class QueryCheck:
    """The check of raw queries in one or more files.

    Example:
        >>> report = Report()
        >>> check = QueryCheck(Task.load(), report)
        >>> list(check.read("queries.txt", [b"red car at night\\n", b"Red car, at night!\\n"]))
        ['red car at night']
        >>> check.finish("fine_tuning")
        >>> print(*report.findings, sep="\\n")
        queries.txt:2 duplicate: the same query as line 1 of queries.txt; it is left out
        queries query-count: found 1 usable, different queries, at least 8; add more
    """

    def __init__(self, task: Task, report: Report) -> None:
        self._task = task
        self._report = report
        self._seen: dict[str | bytes, tuple[str, int]] = {}
        self._is_full = False

    def read(self, name: str, content: Iterable[bytes]) -> Iterator[str]:
        """Yield the valid queries of a file that are new, in order and without surrounding space.

        Findings go to the report as the file is read. Blank lines and duplicates are warnings, and left out.

        Args:
            name: The file's name, for the findings; its extension gives the format.
            content: The file's lines, as `line_rules.lines` yields them. They are read once, up to
                MOST_QUERIES queries.
        """
        file = TextFile(name, self._report)
        if not name.endswith(_KINDS):
            message = f"found another kind of file, expected a name that ends in {' or '.join(_KINDS)}"
            file.found(None, "file-kind", message)
            return
        queried = _of_object if name.endswith(".jsonl") else _of_text
        for number, line in file.read(content):
            if not line.strip():
                file.found(number, "blank-line", "found a blank line; it is left out", "warning")
                continue
            try:
                query = queried(line)
                self._check(query)
            except LineProblem as error:
                file.found(number, error.rule, str(error))
                continue
            first = self._seen.setdefault(query_key(query), (name, number))
            if first != (name, number):
                message = f"the same query as line {first[1]} of {first[0]}; it is left out"
                file.found(number, "duplicate", message, "warning")
            elif len(self._seen) > MOST_QUERIES:
                self._is_full = True
                break
            else:
                yield query
        self._report.rows[name] += file.lines

    def finish(self, method: str, trained_share: float = 1.0) -> None:
        """Add the finding that concerns all files together, once all are read.

        Args:
            method: `distillation` or `fine_tuning`, which decides the minimum of rows.
            trained_share: part of the queries for training, above 0; the rest is for hold-out and validation.
        """
        rows, found = ROWS[method][0], len(self._seen)
        # Rounded first: 100 / (1 - 0.2) is a little more than 125.
        least = ceil(round(rows / trained_share, 6))
        if self._is_full:
            message = f"found more than {MOST_QUERIES} different queries; remove some"
        elif found < least:
            message = f"found {found} usable, different queries, at least {least}; add more"
            if least > rows:
                message += f": a job trains on {rows} rows or more, and {1 - trained_share:.0%} are held out"
        else:
            return
        self._report.add(Finding("queries", None, "query-count", message))

    def _check(self, query: str) -> None:
        if not query:
            raise LineProblem("text", "found an empty query; fill it or remove the line")
        check_text(query)
        if len(query) > (allowed := self._task.max_query_characters):
            message = f"found {len(query)} characters, at most {allowed}; the router refuses longer ones"
            raise LineProblem("query-length", message)


def _of_text(line: bytes) -> str:
    query = decoded(line).strip()
    if query.startswith("{") and query.endswith("}"):
        message = f"found a JSON object ({shown(query)}) in a .txt file; name the file .jsonl"
        raise LineProblem("file-kind", message)
    return query


def _of_object(line: bytes) -> str:
    row = loaded(line)
    if type(row) is not dict:
        raise LineProblem("json", f"found {named(row)}, expected an object with a string 'query'")
    if "query" not in row:
        labelled = "; this is a row for given labels" if "messages" in row else ""
        raise LineProblem("keys", f"found an object without 'query', expected one with it{labelled}")
    if type(row["query"]) is not str:
        raise LineProblem("text", f"query: found {named(row['query'])}, expected a string")
    return str(row["query"].strip())
