"""Check the rules for a data set's files, before a job is paid for.

Bedrock drops rows that it can't read, or fails after hours, and never checks whether the labels make sense.
So every rule is checked here first, row by row and in constant memory, and all findings are reported
together. The limits are from Amazon's guide to customizing Nova models (2026-11): data preparation for
distillation and tuning.
"""

from collections import Counter
from collections.abc import Iterable

from distilled_router.data.balance import imbalances
from distilled_router.data.conversation import LONGEST_KEY, query_key
from distilled_router.data.findings import Finding, Report
from distilled_router.data.limits import HOLDOUT_ROWS, ROWS, VALIDATION_ROWS, least_rows
from distilled_router.data.line_rules import LineProblem, TextFile, lines, shown
from distilled_router.data.preflight import Needs, check_holdout, check_power, check_rows
from distilled_router.data.row_rules import RowReader
from distilled_router.data.similarity import Neighbours, families
from distilled_router.task.task import Task

__all__ = ["ROWS", "VALIDATION_ROWS", "Finding", "Report", "check_dataset", "lines"]

# With fewer hold-out rows the gate's scores depend mostly on chance.
FEW_HOLDOUT_ROWS = 100
MAX_BYTES = 1_000_000_000
# Part of the hold-out rows. With more near duplicates of trained queries, the scores measure memory.
MOST_NEAR_SHARE = 0.10


def check_dataset(
    training: Iterable[bytes] | None,
    holdout: Iterable[bytes] | None,
    task: Task,
    method: str,
    keep: int = 5,
    *,
    validation: Iterable[bytes] | None = None,
    needs: Needs | None = None,
    report: Report | None = None,
) -> Report:
    """Check a data set against all rules.

    Args:
        training: The file's lines as bytes, with or without their line ends: an open binary file, or
            `iter_lines()` of an S3 body. `lines` splits chunks into lines, and limits the length of a line.
            None if there is no such file, as for the other two.
        holdout: Likewise. All are read once, in the order training, validation, hold-out.
        task: The rows must have its student prompt, and answers in its format.
        method: `distillation` or `fine_tuning`.
        keep: How many findings of each rule a new report keeps.
        validation: The job's validation rows.
        needs: What job and gate need; by default only what every job of the method needs.
        report: The report to add findings to; by default a new one.

    Returns:
        The report. Every problem of the content is a finding; only reading the files may raise.
    """
    report = Report(keep) if report is None else report
    if method not in ROWS:
        known = " or ".join(ROWS)
        report.add(Finding("training", None, "method", f"found {method[:40]!r}, expected {known}"))
        return report
    reader = RowReader(task, may_lack_labels=method == "distillation")
    trained: _Seen = {}
    if training is not None:
        least = least_rows(method, needs.student if needs else "")
        rows = _Rows("training", reader, (least, ROWS[method][1]), report)
        rows.check(training)
        trained = rows.seen
    if validation is not None:
        _Rows("validation", reader, VALIDATION_ROWS, report, trained).check(validation)
        _check_together(method, report)
    if holdout is not None:
        reader = RowReader(task, may_lack_labels=False, may_have_count=True)
        held_out = _Holdout("holdout", reader, HOLDOUT_ROWS, report, trained)
        held_out.check(holdout)
        if needs:
            check_holdout(held_out.usable, needs, report)
            if report.ok:
                check_power(held_out.family_sizes, needs, report)
    return report


type _Seen = dict[str | bytes, tuple[int, str]]
"""Line and answer of each query, by its key."""


class _Rows:
    """The check of one file. Remembers key, line and answer of each query, for a limited number of rows."""

    def __init__(
        self,
        name: str,
        reader: RowReader,
        limits: tuple[int, int],
        report: Report,
        trained: _Seen | None = None,
    ) -> None:
        self.seen: _Seen = {}
        self._name = name
        self._task = reader.task
        self._reader = reader
        self._least, self._most = limits
        self._report = report
        self._trained = trained or {}
        self._file = TextFile(name, report)
        self.usable = self._query_bytes = 0
        self._answers: Counter[str] = Counter()
        # Of usable rows, as they are written: names and quotes tell templates. Long ones are left out, so
        # memory use is bounded.
        self._queries: list[str] = []

    def check(self, content: Iterable[bytes]) -> None:
        """Add all findings of a file to the report."""
        for number, line in self._file.read(content):
            if number > self._most:
                continue  # only counted: the file is refused anyway, and memory use stays constant
            self._check_line(number, line)
        if self._file.is_text:
            self._report.rows[self._name] = self._file.lines
            self._report.query_bytes[self._name] = self._query_bytes
            self._check_whole()

    def _check_line(self, number: int, line: bytes) -> None:
        query, answer, problems = self._reader.read(line)
        if query is not None:
            if len(query) > (allowed := self._task.max_query_characters):
                message = f"found {len(query)} characters; the router refuses more than {allowed}"
                self._file.found(number, "query-length", message, "warning")
            self._compare(number, query, answer, problems)
        self._file.refuse(number, problems)
        if problems or query is None:
            return
        self.usable += 1
        self._query_bytes += len(query.encode())
        if len(query) <= LONGEST_KEY:
            self._queries.append(query)
        if answer is not None:
            self._answers[answer] += 1

    def _compare(self, number: int, query: str, answer: str | None, problems: list[LineProblem]) -> None:
        """Find duplicates, conflicts and contamination. The first usable row of equal queries counts."""
        key = query_key(query)
        if key in self._trained:
            place = f"training:{self._trained[key][0]}"
            message = f"found a query of {place} ({shown(query)}); remove it from one of the files"
            problems.append(LineProblem("contamination", message))
        if not problems:
            self.seen.setdefault(key, (number, answer or ""))
        line, known = self.seen.get(key, (number, ""))
        if line == number:
            return
        if known != (answer or ""):
            message = (
                f"found {shown(answer or '')} for a query that has {shown(known)} in line {line}; keep one"
            )
            problems.append(LineProblem("conflict", message))
            return
        message = f"the same query and answer as line {line}; remove one"
        self._file.found(number, "duplicate", message, "warning")

    def _check_whole(self) -> None:
        """Check the file as a whole: counts, size and balance."""
        limits = self._least, self._most
        check_rows(self._name, self._file.lines, limits, self._report, self.usable)
        if self._file.size >= MAX_BYTES:
            message = f"found {self._file.size} bytes, must be under {MAX_BYTES}; remove rows"
            self._file.found(None, "size", message)
        if unlabelled := self.usable - self._answers.total():
            self._report.unlabelled += unlabelled
            message = (
                f"{unlabelled} rows have no answer: the teacher will answer them under the student's"
                f" prompt; label them, or add at least 10 good answers"
            )
            self._file.found(None, "unlabelled", message, "warning")
        answers = ((self._reader.dominants(answer), count) for answer, count in self._answers.items())
        for message in imbalances(answers, self._task.labels):
            self._file.found(None, "balance", message, "warning")


class _Holdout(_Rows):
    """The check of a hold-out file. Its queries must be new to the student, or the scores mean nothing."""

    def _check_whole(self) -> None:
        super()._check_whole()
        near = self._near_training()
        for line, text in near:
            place = f"training:{self._trained[text][0]}"
            message = f"a near duplicate of {place} ({shown(text)}); remove one of them"
            self._file.found(line, "near-contamination", message, "warning")
        if len(near) > MOST_NEAR_SHARE * self.usable:
            message = (
                f"{len(near)} of {self.usable} rows are near duplicates of training queries, at most "
                f"{MOST_NEAR_SHARE:.0%}: the scores would mean little; remove them from one of the files"
            )
            self._file.found(None, "contamination-share", message)
        if 0 < self._file.lines < FEW_HOLDOUT_ROWS:
            message = f"found {self._file.lines} rows; under {FEW_HOLDOUT_ROWS} the scores are mostly chance"
            self._file.found(None, "few-rows", message, "warning")

    @property
    def family_sizes(self) -> list[int]:
        """Return the number of rows of each family of similar queries; a long one has none."""
        sizes = Counter(families(self._queries)).values()
        return [*sizes, *[1] * (self.usable - len(self._queries))]

    def _near_training(self) -> list[tuple[int, str]]:
        """Return each line whose query is nearly one of training, with the nearest one's normalised form.

        Long queries are only compared exactly, so memory use stays constant.
        """
        texts = [key for key in self._trained if isinstance(key, str)]
        neighbours = Neighbours(texts, are_normalised=True)
        nearest = (
            (line, neighbours.nearest(key)) for key, (line, _) in self.seen.items() if isinstance(key, str)
        )
        return [(line, texts[place]) for line, place in nearest if place is not None]


def _check_together(method: str, report: Report) -> None:
    """Check the number of rows of both files: a job's limit includes its validation rows."""
    together, most = report.rows["training"] + report.rows["validation"], ROWS[method][1]
    if report.rows["training"] <= most < together:
        message = f"found {together} rows together with training, at most {most}; remove some"
        report.add(Finding("validation", None, "row-count", message))
