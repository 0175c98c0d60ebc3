"""Compare the data with what job and gate need, before anything is paid for.

Labelled rows have a hold-out file, whose rows are counted. Of raw queries a share is held out by whole
families, so the split is tried as if the teacher labelled all of them. It will leave some out, so the trial's
hold-out set is the largest possible one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from math import ceil
from typing import Self

from distilled_router.data.findings import Finding, Report
from distilled_router.data.limits import HOLDOUT_ROWS, least_rows
from distilled_router.data.similarity import families
from distilled_router.data.split import Part, largest, split, trained_share
from distilled_router.release.power import POWER, described, effective_rows, needed_rows, passes

# The split is tried with at most this many queries, spread evenly over all of them.
TRIED_QUERIES = 20_000
# With a larger part of the queries in families that are never held out, this is told.
MOST_NEVER_HELD_OUT = 0.10
_OWN_HOLDOUT = "provide a hold-out file of your own in dataset.holdout"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What job and gate need of the data.

    Attributes:
        method: `distillation` or `fine_tuning`.
        student: id of the model to customize; empty if it is unknown.
        minimum_examples: the gate's; 0 without a gate.
        margin: the gate's non-inferiority margin; 0 if candidates are not compared with the live release.
        error_margin: the gate's.
        holdout_share, validation_share: parts of the raw queries that are held out; 0 for rows.
        maximum_label_share: of the training rows; 1 if no label is left out.
    """

    method: str
    student: str = ""
    minimum_examples: int = 0
    margin: float = 0.0
    error_margin: float = 0.02
    holdout_share: float = 0.0
    validation_share: float = 0.0
    maximum_label_share: float = 1.0

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the needs that `written` returned as text."""
        return cls(**json.loads(text))

    def written(self) -> str:
        """Return the needs as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)


def check_queries(queries: int, needs: Needs, report: Report) -> bool:
    """Check the number of different, usable raw queries; return whether there are enough."""
    least = least_rows(needs.method, needs.student)
    share = trained_share(needs.holdout_share, needs.validation_share)
    # Rounded first: 100 / (1 - 0.2) is a little more than 125.
    if queries < (wanted := ceil(round(least / share, 6))):
        message = f"found {queries} usable, different queries, at least {wanted}; add more"
        if wanted > least:
            message += f": a job trains on {least} rows or more, and {1 - share:.0%} are held out"
        report.add(Finding("queries", None, "query-count", message))
        return False
    if (most := needs.maximum_label_share) < 1:
        message = (
            f"labelling.maximum_label_share = {most:g} leaves paid labels out: {left_out(0.9, most):.0%} of "
            f"them if 90 % have the same label; 1 leaves none out"
        )
        report.add(Finding("queries", None, "balance", message, "warning"))
    most_rows = min(HOLDOUT_ROWS[1], round(queries * needs.holdout_share))
    return not needs.holdout_share or _check_split_off(most_rows, queries, needs, report)


def left_out(share: float, most: float) -> float:
    """Return the part of all rows that balancing drops.

    Args:
        share: part of the rows whose label is the most frequent one.
        most: part that it may have.

    Example:
        >>> round(left_out(0.9, most=0.6), 2)
        0.75
    """
    return 0.0 if share <= most or share >= 1 else share - most * (1 - share) / (1 - most)


def try_split(queries: Sequence[str], needs: Needs, report: Report) -> None:
    """Split raw queries by families as curation will, and add to the report what that shows."""
    if not needs.holdout_share or not queries:
        return
    count = min(len(queries), TRIED_QUERIES)
    tried = [queries[place * len(queries) // count] for place in range(count)]
    numbers, scale = families(tried), len(queries) / count
    numbered = list(zip(numbers, tried, strict=True))
    part = split(
        numbered,
        numbers,
        {"holdout": Part(needs.holdout_share, HOLDOUT_ROWS[1])},
        rest="training",
        query=lambda row: row[1],
        label=lambda _: "",
        seed="trial",
    )["holdout"]
    most = largest(count, needs.holdout_share)
    never = sum(size for size in Counter(numbers).values() if size > most) / count
    if part and never > MOST_NEVER_HELD_OUT:
        message = (
            f"{never:.0%} of the queries are in families of more than {most * scale:,.0f} similar ones, "
            f"which are never held out: the scores say nothing about these; {_OWN_HOLDOUT}"
        )
        report.add(Finding("queries", None, "families", message, "warning"))
    if _check_split_off(min(HOLDOUT_ROWS[1], round(len(part) * scale)), len(queries), needs, report):
        check_power(_scaled(Counter(number for number, _ in part).values(), scale), needs, report)


def _scaled(sizes: Collection[int], scale: float) -> list[int]:
    """Return sizes of families of a sample as they are expected of all queries: more families, as large."""
    return list(islice(cycle(sizes), round(len(sizes) * scale)))


def check_rows(
    file: str, rows: int, limits: tuple[int, int], report: Report, usable: int | None = None
) -> None:
    """Add to the report that a file has too many rows, or too few usable ones; by default all are usable."""
    usable, (least, most) = rows if usable is None else usable, limits
    if rows > most:
        message = f"found {rows} rows, at most {most}; remove some"
    elif usable < least:
        message = f"found {usable} usable rows, at least {least}; add more"
    else:
        return
    report.add(Finding(file, None, "row-count", message))


def check_holdout(rows: int, needs: Needs, report: Report) -> None:
    """Add to the report what the number of rows of a hold-out file shows."""
    if rows < needs.minimum_examples:
        message = (
            f"found {rows} rows, and gate.minimum_examples is {needs.minimum_examples}: the gate would "
            f"refuse every candidate; add {needs.minimum_examples - rows} rows, or lower it"
        )
        report.add(Finding("holdout", None, "examples", message))


def check_power(sizes: Collection[int], needs: Needs, report: Report) -> None:
    """Add to the report the sizes of the hold-out set's families, and a warning if it shows too little."""
    report.holdout_families, rows = list(sizes), effective_rows(sizes)
    if not rows or not needs.margin or passes(rows, needs.margin, needs.error_margin) >= POWER:
        return
    message = (
        f"the hold-out set counts as {'at most ' if needs.holdout_share else ''}"
        f"{described(rows, needs.margin, needs.error_margin)}. For {POWER:.0%}, provide "
        f"{needed_rows(needs.margin, needs.error_margin):,} independent rows (similar queries count less) or "
        f"raise gate.non_inferiority_margin ({needs.margin:g}) and gate.error_margin ({needs.error_margin:g})"
    )
    file = "queries" if needs.holdout_share else "holdout"
    report.add(Finding(file, None, "power", message, "warning"))


def shown(report: Report, needs: Needs) -> str:
    """Return in words what the hold-out set shows; empty if nothing is known of it, or a finding says it."""
    sizes = report.holdout_families
    if not sizes or not needs.margin or ("warning", "power") in report.counts:
        return ""
    return (
        f"Hold-out set: {'at most ' if needs.holdout_share else ''}{sum(sizes):,} rows in {len(sizes):,} "
        f"families count as {described(effective_rows(sizes), needs.margin, needs.error_margin)}."
    )


def _check_split_off(rows: int, queries: int, needs: Needs, report: Report) -> bool:
    """Compare the most rows that a split can hold out with the gate; return whether they are enough."""
    least = needs.minimum_examples
    share = f"labelling.holdout_share = {needs.holdout_share:g}"
    if not rows:
        message = (
            f"no query can be held out: the {queries:,} share one template or a few, and a family with over "
            f"a tenth of the hold-out set is never held out; {_OWN_HOLDOUT}"
        )
    elif rows < least:
        message = (
            f"{share} holds out at most {rows:,} of the {queries:,} queries, whole families of similar ones, "
            f"and gate.minimum_examples is {least:,}: the gate would refuse every candidate; add queries, "
            f"raise the share, lower the minimum, or {_OWN_HOLDOUT}"
        )
    else:
        return True
    report.add(Finding("queries", None, "examples", message))
    return False
