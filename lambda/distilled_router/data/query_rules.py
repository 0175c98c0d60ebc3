"""Check the rules for raw queries, before a teacher is paid to label them.

A file is text with one query per line (`.txt`), a table of queries and their counts (`.csv`, `.tsv` or
`.txt`), or JSON Lines with a text `query` and possibly more in each object (`.jsonl`).
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from distilled_router.data.conversation import normalised, query_key
from distilled_router.data.findings import Finding, Report
from distilled_router.data.line_rules import LineProblem, TextFile, shown, text_problems
from distilled_router.data.preflight import Needs, check_queries, try_split
from distilled_router.data.query_forms import DIRECTIVE, SAMPLE, Form, form_of
from distilled_router.task.task import Task

__all__ = ["KINDS", "MOST_QUERIES", "QueryCheck"]

# This package's limit. A job trains on 20,000 rows at most, so five times as many give curation enough
# choice. One function keeps all of them in memory, to find duplicates and families.
MOST_QUERIES = 100_000
# So many queries of 512 characters. What curation takes grows with the number of queries and of their words,
# however similar they are; these fit into its function (`python -m benchmarks.similarity`).
MOST_CHARACTERS = 51_200_000
# Part of the traffic. Even a popular title has less.
_MOST_TRAFFIC = 0.3
# Of fewer queries, one may have that much.
_FEW_QUERIES = 20
KINDS = (".txt", ".csv", ".tsv", ".jsonl")
"""How the names of files with raw queries end."""


def kinds() -> str:
    """Return how the names of files with raw queries end, in words."""
    return f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"


class QueryCheck:
    """The check of raw queries in one or more files.

    Example:
        >>> report = Report()
        >>> check = QueryCheck(Task.load(), report)
        >>> list(check.read("queries.txt", [b"red car at night\\n", b"Red car, at night!\\n"]))
        ['red car at night']
        >>> check.traffic("red car at night")
        2
        >>> check.finish(Needs(method="fine_tuning"))
        >>> print(*report.findings, sep="\\n")
        queries.txt:2 duplicate: the same query as line 1 of queries.txt; counted there
        queries query-count: found 1 usable, different queries, at least 8; add more
    """

    def __init__(self, task: Task, report: Report) -> None:
        self._task = task
        self._report = report
        self._seen: dict[str | bytes, tuple[str, int]] = {}
        self._traffic: dict[str | bytes, float] = {}
        self._queries: list[str] = []
        self._characters = 0

    def read(self, name: str, content: Iterable[bytes]) -> Iterator[str]:
        """Yield the valid queries of a file that are new, in order and without surrounding space.

        Findings go to the report as the file is read. Blank lines and duplicates are warnings, and left out.

        Args:
            name: The file's name, for the findings; its extension and first lines give the form.
            content: The file's lines, as `line_rules.lines` yields them. They are read once, up to
                MOST_QUERIES queries and MOST_CHARACTERS characters.
        """
        file = TextFile(name, self._report)
        if not name.lower().endswith(KINDS):
            message = f"found another kind of file, expected a name that ends in {kinds()}"
            file.found(None, "file-kind", message)
            return
        numbered = file.read(content)
        first = list(islice(numbered, SAMPLE))
        if first and DIRECTIVE.fullmatch(first[0][1]):
            first = first[1:]
        try:
            form = form_of(name, [line for _, line in first], self._task.labels)
        except LineProblem as error:
            file.refuse(1, [error])
        else:
            yield from self._new(name, file, chain(first, numbered), form)
            if str(form):
                file.found(None, "columns", f"found {form}", "warning")
        self._report.rows[name] += file.lines

    @property
    def has_traffic(self) -> bool:
        """Return whether some query was asked more or less often than once."""
        return any(count != 1 for count in self._traffic.values())

    def published(self) -> list[str]:
        """Return the queries that were read, in the order in which a labelling numbers them.

        A log with counts is often sorted by them. Its queries are sorted by their text instead, so that a
        labelling finds its answers again if only counts have changed.
        """
        return sorted(self._queries, key=normalised) if self.has_traffic else list(self._queries)

    def traffic(self, query: str) -> float:
        """Return how often a query was asked: the sum of its counts in all files, or of its lines."""
        return self._traffic[query_key(query)]

    def _new(
        self, name: str, file: TextFile, numbered: Iterable[tuple[int, bytes]], form: Form
    ) -> Iterator[str]:
        """Yield the valid queries that are new."""
        skips = form.has_header
        for number, line in numbered:
            if not line.strip():
                file.found(number, "blank-line", "found a blank line; it is left out", "warning")
                continue
            if skips:
                skips = False
                continue
            try:
                query, count = form.read(line)
                problems = self._problems(query)
            except LineProblem as error:
                problems = [error]
            if problems:
                file.refuse(number, problems)
                continue
            key = query_key(query)
            self._traffic[key] = self._traffic.get(key, 0) + count
            first = self._seen.setdefault(key, (name, number))
            if first != (name, number):
                message = f"the same query as line {first[1]} of {first[0]}; counted there"
                file.found(number, "duplicate", message, "warning")
                continue
            self._characters += len(query)
            if self._most():
                break
            self._queries.append(query)
            yield query

    def finish(self, needs: Needs, *, tries_split: bool = True) -> None:
        """Add the findings that concern all files together, once all are read.

        Args:
            needs: What job and gate need.
            tries_split: Whether to look for families, which takes some seconds for many queries.
        """
        if most := self._most():
            message = f"found more than {most}; remove some"
            self._report.add(Finding("queries", None, "query-count", message))
            return
        self._check_traffic()
        if check_queries(len(self._seen), needs, self._report) and tries_split:
            try_split(self._queries, needs, self._report)

    def _check_traffic(self) -> None:
        """Warn about a query that has most of the traffic: a line with the total looks like one."""
        if len(self._queries) < _FEW_QUERIES:
            return
        most = max(self._queries, key=self.traffic)
        share = self.traffic(most) / sum(self._traffic.values())
        if share > _MOST_TRAFFIC:
            message = f"{shown(most)} has {share:.0%} of the traffic; remove it if it is a total, not a query"
            self._report.add(Finding("queries", None, "traffic", message, "warning"))

    def _most(self) -> str:
        """Return the limit that the queries exceed, or an empty string."""
        if len(self._seen) > MOST_QUERIES:
            return f"{MOST_QUERIES} different queries"
        return f"{MOST_CHARACTERS} characters in all queries" if self._characters > MOST_CHARACTERS else ""

    def _problems(self, query: str) -> list[LineProblem]:
        if not query:
            return [LineProblem("text", "found an empty query; fill it or remove the line")]
        problems = text_problems(query)
        if len(query) > (allowed := self._task.max_query_characters):
            message = f"found {len(query)} characters, at most {allowed}; the router refuses longer ones"
            problems.append(LineProblem("query-length", message))
        return problems
