"""Read raw queries, and labels that exist, from Bedrock's invocation logs.

Logs grow and expire, but a digest must mean the same data. So they are read once: what the first deployment
with the digest took from them is kept in the labels' folder, and later ones use that.
"""

from __future__ import annotations

import gzip
import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import batched
from typing import Any, Self

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.custom_resource import is_true
from distilled_router.aws.errors import ResourceError, code, is_missing, message, with_retries
from distilled_router.aws.objects import Folder
from distilled_router.data.conversation import query_key
from distilled_router.data.files import ACCESS_WAIT_SECONDS, CHUNK_BYTES, DENIED, Retry, check_region
from distilled_router.data.findings import Finding, Report
from distilled_router.data.invocation_logs import MOST_RECORD_BYTES, LeftOut, Selection
from distilled_router.data.labelling_plan import Plan
from distilled_router.data.line_rules import lines
from distilled_router.data.preflight import Needs
from distilled_router.data.query_rules import MOST_QUERIES, QueryCheck
from distilled_router.task.task import Task

logger = Logger(child=True)

# What was taken from the logs, in the labels' folder.
KEPT = "logged.jsonl"

# Answers to equal queries that are kept, the first ones: as many as `labelling.samples` allows.
MOST_ANSWERS = 10
# The function's timeout is 15 minutes. The rest is for checks, and for writing the shards.
READ_SECONDS = 600.0
# Objects read in parallel; botocore keeps ten connections.
READERS = 8
# Objects whose queries are in memory at a time.
_BATCH = 2 * READERS
# Largest body that is an object of its own; a query's request has a prompt and nothing else.
_MOST_BODY_BYTES = 2**20
# An object is read so often if its connection breaks, from its beginning.
_ATTEMPTS = 3
_GZIP = b"\x1f\x8b"

_OBJECT = re.compile(r"\d{4}/\d{2}/\d{2}/\d{2}/[^/]+\.gz")
_YEAR = re.compile(r"\d{4}/")
# Folders on the way to a Region's years. Other services write their logs beside these.
_LEVEL = re.compile(r"AWSLogs/|\d{12}/|BedrockModelInvocationLogs/|[a-z]{2}(-[a-z]+)+-\d/")
_LEVELS = 4
_NARROW = (
    "Narrow dataset.logs_from and dataset.logs_until, or dataset.log_filters, in the environment's settings. "
    "Nothing was published."
)
# What to do if there are too few queries.
MORE = "Widen dataset.logs_from and dataset.logs_until, or check dataset.log_filters"
MORE_OF_KEPT = (
    "An earlier deployment with these settings has read the logs, and newer requests don't count: set "
    "another window in dataset.logs_from and dataset.logs_until"
)


@dataclass(slots=True)
class LoggedQuery:
    """A query, how often it was logged, and its first answers: weights in the order of the labels."""

    query: str
    count: int = 0
    answers: list[tuple[float, ...]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the query as it is kept."""
        return {"query": self.query, "count": self.count, "answers": self.answers}


@dataclass
class Found:
    """The queries in some records, and the records that were left out, by reason."""

    queries: dict[str | bytes, LoggedQuery] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    records: int = 0
    objects: int = 0

    def read(self, line: bytes, selection: Selection) -> None:
        """Add a record."""
        self.records += 1
        try:
            logged = selection.read(line)
        except LeftOut as error:
            self.leave_out(error)
        else:
            answers = [] if logged.weights is None else [logged.weights]
            self._add(query_key(logged.query), LoggedQuery(logged.query, 1, answers))

    def leave_out(self, error: LeftOut) -> None:
        """Count a record that doesn't count as a query."""
        self.left_out[error.reason] += 1
        if error.example:
            self.examples.setdefault(error.reason, error.example[:100])

    def merge(self, other: Found) -> None:
        """Add what was found in later records."""
        for key, query in other.queries.items():
            self._add(key, query)
        self.left_out += other.left_out
        self.examples = {**other.examples, **self.examples}
        self.records += other.records
        self.objects += other.objects

    def _add(self, key: str | bytes, query: LoggedQuery) -> None:
        known = self.queries.get(key)
        if known is None:
            self.queries[key] = query
            return
        known.count += query.count
        known.answers = (known.answers + query.answers)[:MOST_ANSWERS]

    @property
    def is_full(self) -> bool:
        """Return whether there are more different queries than can be labelled."""
        return len(self.queries) > MOST_QUERIES

    def report(self, report: Report) -> None:
        """Add what was left out to a report, in one warning."""
        parts = []
        for reason, number in self.left_out.most_common():
            example = self.examples.get(reason)
            parts.append(f"{number:,} {reason}{f' (such as {example})' if example else ''}")
        if parts:
            text = f"left out of {self.records:,} logged requests: {'; '.join(parts)}"
            report.add(Finding("invocation logs", None, "left-out", text, "warning"))


@dataclass(frozen=True, kw_only=True)
class Logs:
    """The invocation logs in a folder, within a window of days.

    Attributes:
        s3: an S3 client.
        bucket, prefix: the folder that model invocation logging writes to.
        selection: which records count.
        first, last: days of the window, both included, such as `2026-11-01`; empty for no limit.
        retry: repeats a call, see `with_retries`.
        now: returns seconds.
    """

    s3: Any
    bucket: str
    prefix: str
    selection: Selection
    first: str = ""
    last: str = ""
    retry: Retry = with_retries
    now: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, given: Mapping[str, Any], plan: Plan, task: Task, s3: Any, retry: Retry) -> Self:
        """Return the logs that the custom resource's property `Logs` names."""
        bucket, prefix = str(given["Bucket"]), str(given["Prefix"])
        selection = Selection(
            task=task,
            metadata=dict(given.get("Metadata", {})),
            template=str(given["Query"]),
            teacher=plan.teacher if is_true(given.get("UseAnswers")) else "",
            body=lambda uri: _body(s3, uri, f"s3://{bucket}/{prefix}"),
        )
        return cls(
            s3=s3,
            bucket=bucket,
            prefix=prefix,
            selection=selection,
            first=str(given.get("From", "")),
            last=str(given.get("Until", "")),
            retry=retry,
        )

    def read(self) -> Found:
        """Return the different queries, in the order of the objects' keys.

        Raises:
            ResourceError: The folder can't be read, has no logs, or more than can be read.
        """
        check_region(self.s3, self.bucket, str(self))
        found, end, last = Found(), self.now() + READ_SECONDS, ""
        with ThreadPoolExecutor(READERS) as pool:
            for keys in batched(self._keys(end), _BATCH):
                for part in pool.map(lambda key: self._object(key, end), keys):
                    found.merge(part)
                last = keys[-1]
                self._check(found, last, end)
        self._check(found, last or "none", end)
        if not found.objects:
            raise ResourceError(
                f"{self} has no log objects. Expected keys like {self.prefix}AWSLogs/<account>/"
                "BedrockModelInvocationLogs/<Region>/<year>/<month>/<day>/<hour>/<name>.gz. Nothing was "
                "published. dataset.logs must be the folder that logging writes to, or one in it down to the "
                "Region's. Check also dataset.logs_from and dataset.logs_until."
            )
        logger.info("logs read", objects=found.objects, records=found.records, queries=len(found.queries))
        return found

    def _check(self, found: Found, last: str, end: float) -> None:
        """Raise ResourceError if there are too many queries, or if the time is over."""
        if found.is_full:
            raise ResourceError(
                f"{self} has more than {MOST_QUERIES:,} different queries, up to {last}. {_NARROW}"
            )
        if self.now() > end:
            raise ResourceError(
                f"{self} has more logs than can be read in {READ_SECONDS:.0f} s: {found.objects:,} objects "
                f"with {found.records:,} requests, up to {last}. {_NARROW}"
            )

    def _keys(self, end: float) -> Iterator[str]:
        """Yield the keys of the log objects in the window, until the time is over.

        Keys begin with the hour, so they are in order. Bodies that are objects of their own are listed too.
        """
        first, last = (day.replace("-", "/") for day in (self.first, self.last))
        try:
            regions = self.retry(
                lambda: list(self._regions(self.prefix, _LEVELS)),
                retryable=lambda error: code(error) in DENIED,
                seconds=ACCESS_WAIT_SECONDS,
            )
            for region in regions:
                start = {"StartAfter": f"{region}{first}/"} if first else {}
                for item in self._listed(region, **start):
                    if self.now() > end:
                        return
                    name = item["Key"].removeprefix(region)
                    if last and name[: len(last)] > last:
                        break
                    if _OBJECT.fullmatch(name):
                        yield item["Key"]
        except ClientError as error:
            raise self._unreadable("listed", error) from error

    def _regions(self, prefix: str, levels: int) -> Iterator[str]:
        """Yield the folders of Regions below a folder: those that have folders of years."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/"
        )
        below = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        if any(_YEAR.fullmatch(folder.removeprefix(prefix)) for folder in below):
            yield prefix
        elif levels:
            for folder in below:
                if _LEVEL.fullmatch(folder.removeprefix(prefix)):
                    yield from self._regions(folder, levels - 1)

    def _listed(self, prefix: str, **more: str) -> Iterator[Any]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, **more)
        return (item for page in pages for item in page.get("Contents", ()))

    def _object(self, key: str, end: float) -> Found:
        """Return what is in a log object. If its connection breaks, it is read again.

        What is kept is never read again, so nothing may be missing from it because of a network.
        """
        for left in reversed(range(_ATTEMPTS)):
            try:
                return self._streamed(key, end)
            except (BotoCoreError, OSError) as error:
                if not left:
                    raise ResourceError(
                        f"{self} can't be read: {key}: {error}. Nothing was published. Deploy again."
                    ) from error
        raise AssertionError("unreachable")

    def _streamed(self, key: str, end: float) -> Found:
        """Return what is in a log object. It is read as a stream, until the time is over."""
        found = Found(objects=1)
        try:
            opened = self.retry(
                lambda: self.s3.get_object(Bucket=self.bucket, Key=key),
                retryable=lambda error: code(error) in DENIED,
                seconds=ACCESS_WAIT_SECONDS,
            )
            for line in lines(_chunks(opened["Body"]), MOST_RECORD_BYTES):
                if line.strip():
                    found.read(line, self.selection)
                if found.is_full or self.now() > end:
                    break
        except ClientError as error:
            if not is_missing(error):
                raise self._unreadable("read", error) from error
            found.leave_out(LeftOut("objects that expired meanwhile", key))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            found.leave_out(LeftOut("objects that are not gzip", f"{key}: {error}"))
        return found

    def _unreadable(self, done: str, error: ClientError) -> ResourceError:
        return ResourceError(
            f"{self} can't be {done} ({code(error)}: {message(error)}). Nothing was published. Check "
            "dataset.logs and dataset.source_account in the environment's settings, the policy of the "
            "bucket, and dataset.source_key if a key encrypts the logs."
        )

    def __str__(self) -> str:
        days = "".join(f" {word} {day}" for word, day in (("from", self.first), ("until", self.last)) if day)
        return f"Folder of invocation logs s3://{self.bucket}/{self.prefix}{days}"


def kept(folder: Folder) -> list[LoggedQuery] | None:
    """Return what an earlier deployment took from the logs; None if none did."""
    if KEPT not in folder.names(KEPT):
        return None
    return [
        LoggedQuery(row["query"], row["count"], [tuple(answer) for answer in row["answers"]])
        for row in folder.rows(KEPT)
    ]


def keep(folder: Folder, queries: Sequence[LoggedQuery]) -> Sequence[LoggedQuery]:
    """Keep what was taken from the logs; return it, or what another deployment kept first."""
    if folder.create_rows(KEPT, (query.document() for query in queries)):
        return queries
    return kept(folder) or ()


def usable(
    queries: Iterable[LoggedQuery], task: Task, needs: Needs, report: Report, advice: str = MORE
) -> list[LoggedQuery]:
    """Return the queries that keep the rules for raw queries; the others are warnings.

    Nobody can correct a log, so only too few queries are an error, which ends with the advice. No query is
    quoted, since an account's log holds those of all callers.
    """
    by_text = {query.query: query for query in queries}
    found = Report()
    check = QueryCheck(task, found)
    rows = (json.dumps({"query": text}).encode() for text in by_text)
    # Nothing to read is no file without lines.
    passed = [by_text[text] for text in check.read(KEPT, rows)] if by_text else []
    for _, rule in found.counts.elements():
        report.add(Finding("invocation logs", None, rule, "found in a query, which is left out", "warning"))
    report.rows["logged queries"] = len(passed)
    before = len(found.findings)
    check.finish(needs)
    for finding in found.findings[before:]:
        message = finding.message
        if finding.severity == "error":
            message += f". {advice}"
        report.add(replace(finding, file="invocation logs", message=message))
    return passed


def labelled(
    rows: Iterable[Mapping[str, Any]], queries: Sequence[LoggedQuery], task: Task
) -> Iterator[dict[str, Any]]:
    """Yield a shard's labelled rows from logged answers, as the labelling writes them."""
    for row in rows:
        answers = queries[row["number"]].answers
        yield {
            **row,
            "answers": [{"weights": dict(zip(task.labels, given, strict=True))} for given in answers],
            "input_tokens": 0,
            "output_tokens": 0,
        }


def _body(s3: Any, uri: str, folder: str) -> Any:
    """Return a body that is an object of its own; only the folder of the logs is read.

    Raises:
        LeftOut: The body isn't there, is too large, or no JSON.
        ClientError: S3 refuses to give it.
    """
    if not uri.startswith(folder):
        raise LeftOut("bodies outside the folder of the logs", uri)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        content = _unpacked(s3.get_object(Bucket=bucket, Key=key)["Body"])
        if len(content) > _MOST_BODY_BYTES:
            raise LeftOut(f"bodies of more than {_MOST_BODY_BYTES:,} bytes", uri)
        return json.loads(content)
    except ClientError as error:
        if not is_missing(error):
            raise
        # Bedrock writes it up to a minute after its record.
        raise LeftOut("bodies that are missing", uri) from error
    except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise LeftOut("bodies that are no JSON", uri) from error


def _unpacked(body: Any) -> bytes:
    """Return an object's content, or its beginning if it is longer than a body may be."""
    content = b""
    while len(content) <= _MOST_BODY_BYTES and (chunk := body.read(CHUNK_BYTES)):
        content += chunk
    # AWS documents gzip for the records only, and other readers of these logs expect both.
    if not content.startswith(_GZIP) or len(content) > _MOST_BODY_BYTES:
        return content
    return gzip.GzipFile(fileobj=BytesIO(content)).read(_MOST_BODY_BYTES + 1)


def _chunks(body: Any) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=body) as unpacked:
        yield from iter(lambda: unpacked.read(CHUNK_BYTES), b"")
