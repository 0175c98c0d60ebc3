"""Compare the data set's files with what job and gate need, before synthesis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from cdk_distilled_router.needs import needs as needs_of
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.findings import Finding, Report
from distilled_router.data.line_rules import lines
from distilled_router.data.preflight import Needs, check_holdout, check_queries, try_split
from distilled_router.data.query_rules import QueryCheck
from distilled_router.links import inside
from distilled_router.task.task import Task
from stacks.settings import PROJECT, Problem, Settings, SettingsError, is_s3

_CHUNK_BYTES = 65_536


def needs(settings: Settings) -> Needs:
    """Return what the environment's job and gate need of the data."""
    dataset = settings.dataset
    return needs_of(
        settings.distillation,
        settings.gate,
        settings.labelling if dataset.is_curated else None,
        is_holdout_given=dataset.holdout is not None,
    )


def check(settings: Settings, *, with_families: bool, project: Path = PROJECT) -> Report:
    """Return what the files on this machine show; nothing is known of objects in S3.

    Only counts are compared; the deployment and `make dataset-check` apply all rules.

    Args:
        settings: the environment's.
        with_families: whether to look for families of similar queries, which takes some seconds for many.
        project: the folder that paths in the settings are relative to.

    Raises:
        OSError: a file can't be read.
    """
    report, dataset, wanted = Report(), settings.dataset, needs(settings)
    if dataset.holdout and not is_s3(dataset.holdout):
        content = lines(_chunks(inside(project, dataset.holdout)))
        if with_families:
            _look_closer(content, settings, wanted, report)
        else:
            check_holdout(sum(bool(line.strip()) for line in content), wanted, report)
    if dataset.queries and not is_s3(dataset.queries):
        queries = QueryCheck(Task.load(settings.task_folder), Report())
        found = list(queries.read(dataset.queries, lines(_chunks(inside(project, dataset.queries)))))
        if check_queries(len(found), wanted, report) and with_families:
            try_split(found, wanted, report)
    return report


def _look_closer(content: Iterable[bytes], settings: Settings, wanted: Needs, report: Report) -> None:
    """Add what the rows of a hold-out file show; findings about single lines are the deployment's."""
    found = Report()
    task, method = Task.load(settings.task_folder), settings.distillation.method
    check_dataset(None, content, task, method, needs=wanted, report=found)
    report.holdout_families = found.holdout_families
    for finding in found.findings:
        if finding.rule in ("examples", "power"):
            report.add(finding)


def enforce(settings: Settings, project: Path = PROJECT) -> None:
    """Raise SettingsError if the files on this machine can't satisfy job and gate."""
    found = check(settings, with_families=False, project=project)
    if problems := [_problem(settings, each) for each in found.findings if each.severity == "error"]:
        raise SettingsError(problems)


def _problem(settings: Settings, finding: Finding) -> Problem:
    key = "queries" if finding.file == "queries" else "holdout"
    file = f"environments/{settings.environment}.toml"
    allowed = f"a file with enough for job and gate: {finding.message}"
    return Problem(file, f"dataset.{key}", json.dumps(getattr(settings.dataset, key)), allowed)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
