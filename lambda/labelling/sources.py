"""The raw queries of a labelling: from files, or from invocation logs, which may also have the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distilled_router.aws.custom_resource import is_true
from distilled_router.aws.objects import Folder
from distilled_router.data.files import Retry, files_of
from distilled_router.data.findings import Report
from distilled_router.data.labelling_plan import Plan, shard_name
from distilled_router.data.preflight import Needs
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import Task
from labelling import logs
from labelling.logs import LoggedQuery, Logs
from labelling.records import Query

# Shards of logged answers, which nobody is asked for: the digest doesn't cover the setting of their size.
LOGGED_PER_SHARD = 10_000


@dataclass(frozen=True)
class RawQueries:
    """Different queries that keep the rules; `logged` are the same ones as they were taken from logs.

    `counts` says how often each query was asked. With `has_answers` they are labelled already.
    """

    queries: Sequence[str]
    counts: Sequence[float]
    logged: Sequence[LoggedQuery] = ()
    has_answers: bool = False

    def publish(self, folder: Folder, size: int, task: Task) -> int:
        """Write the queries in shards of at most `size`, and labels that exist. Return the number of shards.

        What another deployment with the same digest took from the logs first is written instead.
        """
        logged, counted = self.logged, list(zip(self.queries, self.counts, strict=True))
        if logged:
            logged = logs.keep(folder, logged)
            counted = [(one.query, one.count) for one in logged]
        queries = [Query(number, query, count) for number, (query, count) in enumerate(counted)]
        shards = list(_shards(queries, LOGGED_PER_SHARD if self.has_answers else size))
        for name, rows in shards:
            if self.has_answers:
                folder.write_rows(f"labelled/{name}.jsonl", logs.labelled(rows, logged, task))
            folder.write_rows(f"queries/{name}.jsonl", rows)
        return len(shards)


@dataclass(frozen=True)
class Source:
    """Where a custom resource's queries are, by its properties."""

    properties: Mapping[str, Any]
    plan: Plan
    task: Task
    s3: Any
    retry: Retry

    def read(self, folder: Folder, report: Report) -> RawQueries:
        """Return the queries. Add what is wrong with them to the report.

        Logs are read unless the labels' folder has what an earlier deployment took from them.
        """
        return self._logged(folder, report) if "Logs" in self.properties else self._of_files(report)

    def _of_files(self, report: Report) -> RawQueries:
        files = files_of("queries", self.properties["Queries"], self.s3, self.retry)
        check = QueryCheck(self.task, report)
        for file in files:
            for _ in check.read(file.location["Key"], file.rows()):
                pass
        check.finish(self._needs)
        queries = check.published()
        return RawQueries(queries, list(map(check.traffic, queries)))

    def _logged(self, folder: Folder, report: Report) -> RawQueries:
        given, found, advice = self.properties["Logs"], logs.kept(folder), logs.MORE_OF_KEPT
        if found is None:
            advice = logs.MORE
            read = Logs.of(given, self.plan, self.task, self.s3, self.retry).read()
            read.report(report)
            found = list(read.queries.values())
        passed = logs.usable(found, self.task, self._needs, report, advice)
        return RawQueries(
            [one.query for one in passed],
            [one.count for one in passed],
            passed,
            is_true(given.get("UseAnswers")),
        )

    @property
    def _needs(self) -> Needs:
        """What job and gate need; of a template of an earlier version, only what every job needs."""
        if "Needs" in self.properties:
            return Needs.read(str(self.properties["Needs"]))
        share = 0.0 if "Holdout" in self.properties else self.plan.holdout_share
        return Needs(
            method=self.plan.method, holdout_share=share, validation_share=self.plan.validation_share
        )


def _shards(queries: Sequence[Query], size: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield name and rows of shards of nearly equal length, at most `size` queries each."""
    count = -(-len(queries) // size)
    for number in range(count):
        start, end = number * len(queries) // count, (number + 1) * len(queries) // count
        yield shard_name(number), [query.row() for query in queries[start:end]]
