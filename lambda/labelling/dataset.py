"""Check the curated data set by the rules for all data sets, and publish its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from distilled_router.aws.errors import ResourceError
from distilled_router.aws.objects import Folder, json_lines
from distilled_router.data.conversation import row
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.files import SAMPLES
from distilled_router.data.findings import WARNINGS
from distilled_router.data.labelling_plan import Plan
from distilled_router.data.preflight import Needs
from distilled_router.task.task import Task
from labelling.curation import HOLDOUT, TRAFFIC, TRAINING, VALIDATION, Curated, Labelled

REPORT, REJECTS = "curation.json", "rejects.jsonl"


def publish(
    target: Folder,
    curated: Curated,
    plan: Plan,
    task: Task,
    given: Sequence[bytes] | None,
    needs: Needs | None = None,
) -> dict[str, str]:
    """Write the report and the rejects, and the data set's files; return their SHA-256 by name.

    Raises ResourceError if the data set is invalid.

    Args:
        target: the data set's folder.
        curated: its parts, and what was left out.
        plan: the labelling's.
        task: renders the rows.
        given: the lines of a supplied hold-out set, which is published already.
        needs: what job and gate need. Default: only the rules for all data sets apply.
    """
    target.write_rows(REJECTS, map(asdict, curated.rejects))
    rows = {name: list(_rows(name, part, task)) for name, part in curated.parts.items()}
    validation = json_lines(rows[VALIDATION]) if VALIDATION in rows else None
    training, holdout = json_lines(rows[TRAINING]), given or json_lines(rows.get(HOLDOUT, ()))
    found = check_dataset(training, holdout, task, plan.method, validation=validation, needs=needs)
    warnings = [*found.warned(), *curated.notes(plan)]
    target.write(REPORT, {**curated.report(), "warnings": warnings})
    if plan.validation_share and VALIDATION not in rows:
        raise ResourceError(
            f"labelling.validation_share = {plan.validation_share:g} leaves no row for validation."
        )
    if not found.ok:
        raise ResourceError(found.summary())
    target.write(WARNINGS, {"warnings": warnings})
    # These decide nothing, so they are not among the files whose hashes count.
    if TRAFFIC in rows:
        target.write_rows(f"{TRAFFIC}.jsonl", rows[TRAFFIC])
    if any(one.samples for one in curated.parts[TRAINING]):
        target.write_rows(SAMPLES, _samples(curated.parts[TRAINING]))
    return {
        name: target.write_rows(f"{name}.jsonl", rows[name])
        for name in (HOLDOUT, VALIDATION, TRAINING)
        if name in rows
    }


def _samples(part: Sequence[Labelled]) -> Iterator[dict[str, object]]:
    """Yield each query with the weights of its valid samples."""
    return ({"query": one.query, "samples": one.each_sample()} for one in part)


def _rows(name: str, part: Sequence[Labelled], task: Task) -> Iterator[dict[str, object]]:
    """Yield a part's rows; those that Bedrock never reads say how often a query was asked."""
    has_counts = name in (HOLDOUT, TRAFFIC)
    return (row(task, one.query, one.weights, one.count if has_counts else 1) for one in part)
