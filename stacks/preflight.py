"""Compare the data set's files with what job and gate need, before synthesis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cdk_distilled_router.needs import needs as needs_of
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.findings import Finding, Report
from distilled_router.data.limits import HOLDOUT_ROWS, ROWS, least_rows
from distilled_router.data.line_rules import lines
from distilled_router.data.preflight import Needs, check_holdout, check_queries, check_rows, try_split
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
    if dataset.training and not is_s3(dataset.training):
        limits = least_rows(wanted.method, wanted.student), ROWS[wanted.method][1]
        check_rows("training", _rows(project, dataset.training), limits, report)
    if dataset.holdout and not is_s3(dataset.holdout):
        rows = _rows(project, dataset.holdout)
        check_rows("holdout", rows, HOLDOUT_ROWS, report)
        check_holdout(rows, wanted, report)
        if with_families and report.ok:
            _look_closer(lines(_chunks(inside(project, dataset.holdout))), settings, wanted, report)
    if dataset.queries and not is_s3(dataset.queries):
        _check_queries(settings, wanted, report, with_families=with_families, project=project)
    return report


def _check_queries(
    settings: Settings, wanted: Needs, report: Report, *, with_families: bool, project: Path
) -> None:
    name, read = str(settings.dataset.queries), Report()
    check = QueryCheck(Task.load(settings.task_folder), read)
    found = list(check.read(name, lines(_chunks(inside(project, name)))))
    if not found and read.findings:
        report.add(replace(read.by_weight()[0], file="queries"))  # why there are none
    elif check_queries(len(found), wanted, report) and with_families:
        try_split(found, wanted, report)


def _rows(project: Path, name: str) -> int:
    """Return the number of lines of a file that are not blank."""
    return sum(bool(line.strip()) for line in lines(_chunks(inside(project, name))))


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
    allowed = f"a file with enough for job and gate: {finding.message}"
    found = json.dumps(getattr(settings.dataset, finding.file))
    return Problem(settings.file, f"dataset.{finding.file}", found, allowed)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
