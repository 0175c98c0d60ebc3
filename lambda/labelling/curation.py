"""Select the teacher's reliable answers and split them into training, validation and hold-out sets."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distilled_router.data.conversation import normalised
from distilled_router.data.dataset_rules import ROWS, VALIDATION_ROWS
from distilled_router.data.labelling_plan import Plan
from distilled_router.data.similarity import Neighbours, families
from distilled_router.task.task import Task
from labelling.agreement import consensus

TRAINING, VALIDATION, HOLDOUT = "training", "validation", "holdout"
# Largest share of the held-out rows that one family may have, so that no family dominates the evaluation.
LARGEST_HELD_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query with the teacher's weights; `label` is the dominant one."""

    query: str
    weights: dict[str, float]
    agreement: float
    label: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A query that is left out, the reason, and a detail for people who review rejects."""

    query: str
    reason: str
    detail: str = ""


@dataclass
class Curated:
    """The parts of a data set, the rejects, and the number of queries by agreement."""

    parts: dict[str, list[Labelled]]
    rejects: list[Reject] = field(default_factory=list)
    agreements: Counter[str] = field(default_factory=Counter)
    families: int = 0
    largest_family: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def report(self) -> dict[str, Any]:
        """Return the curation report: kept and rejected counts, agreement, and label balance by part."""
        reasons = Counter(reject.reason for reject in self.rejects)
        kept = sum(map(len, self.parts.values()))
        return {
            "queries": kept + len(self.rejects),
            "kept": kept,
            "left_out": dict(reasons.most_common()),
            "agreement": dict(sorted(self.agreements.items())),
            "parts": {
                name: {"rows": len(rows), "by_label": dict(Counter(row.label for row in rows).most_common())}
                for name, rows in self.parts.items()
            },
            "families": {"count": self.families, "largest": self.largest_family},
            "teacher_tokens": {"input": self.input_tokens, "output": self.output_tokens},
        }


def curate(
    rows: Iterable[Mapping[str, Any]], plan: Plan, task: Task, held_out: Sequence[str] | None
) -> Curated:
    """Return the queries that the teacher labels consistently, split by families of similar queries.

    Args:
        rows: the labelled shards' rows, in order.
        plan: the thresholds and shares.
        task: defines the labels.
        held_out: the queries of a supplied hold-out set; None to split one off.
    """
    curated = Curated({TRAINING: []})
    agreed = list(_agreed(rows, plan, task, curated))
    if held_out is not None:
        agreed = list(_without_similar(held_out, agreed, curated))
    curated.parts = _split(agreed, plan, curated, with_holdout=held_out is None)
    curated.parts[TRAINING] = _balanced(curated.parts[TRAINING], plan, curated)
    curated.parts[TRAINING] = _limited(curated, plan)
    return curated


def _agreed(
    rows: Iterable[Mapping[str, Any]], plan: Plan, task: Task, curated: Curated
) -> Iterator[Labelled]:
    """Yield the queries on whose weights enough samples agree; reject the others."""
    for row in rows:
        query = str(row["query"])
        curated.input_tokens += int(row["input_tokens"])
        curated.output_tokens += int(row["output_tokens"])
        answers: list[Mapping[str, Any]] = row["answers"]
        found = consensus([answer.get("weights") for answer in answers], task, plan.tolerance)
        curated.agreements[f"{found.agreement if found else 0:.2f}"] += 1
        if found is None:
            curated.rejects.append(Reject(query, "no valid answer", str(answers[-1].get("reason", ""))))
        elif found.agreement < plan.minimum_agreement - 1e-9:
            given = "; ".join(str(list(a["weights"].values())) for a in answers if a.get("weights"))
            curated.rejects.append(Reject(query, "the samples disagree", given))
        else:
            yield Labelled(query, found.weights, found.agreement, task.dominant(found.weights))


def _without_similar(
    held_out: Sequence[str], agreed: Sequence[Labelled], curated: Curated
) -> Iterator[Labelled]:
    """Yield the queries that are not in the supplied hold-out set or similar to one in it."""
    exact = {normalised(query) for query in held_out}
    near = Neighbours(held_out)
    for one in agreed:
        place = near.nearest(one.query)
        if normalised(one.query) in exact:
            curated.rejects.append(Reject(one.query, "in the hold-out set"))
        elif place is not None:
            curated.rejects.append(Reject(one.query, "nearly in the hold-out set", held_out[place]))
        else:
            yield one


def _split(
    agreed: Sequence[Labelled], plan: Plan, curated: Curated, *, with_holdout: bool
) -> dict[str, list[Labelled]]:
    """Assign whole families to the parts, with the configured share of every label.

    Families are taken in the order of a hash of their first query, which is random but reproducible.
    """
    numbers = families([one.query for one in agreed])
    grouped: dict[int, list[Labelled]] = defaultdict(list)
    for number, one in zip(numbers, agreed, strict=True):
        grouped[number].append(one)
    curated.families = len(grouped)
    curated.largest_family = max(map(len, grouped.values()), default=0)
    shares = {HOLDOUT: plan.holdout_share if with_holdout else 0.0, VALIDATION: plan.validation_share}
    totals = Counter(one.label for one in agreed)
    wanted = {
        (part, label): share * count for part, share in shares.items() for label, count in totals.items()
    }
    limits = {HOLDOUT: len(agreed), VALIDATION: VALIDATION_ROWS[1]}
    parts: dict[str, list[Labelled]] = {TRAINING: [], VALIDATION: [], HOLDOUT: []}
    most = max(1.0, LARGEST_HELD_OUT * len(agreed) * max(shares.values()))
    for family in sorted(grouped.values(), key=lambda members: _shuffle_key(members[0].query, plan.labels)):
        label = Counter(one.label for one in family).most_common(1)[0][0]
        part = next(
            (
                name
                for name in shares
                if wanted[name, label] >= len(family) - 0.5
                and len(family) <= most
                and len(parts[name]) + len(family) <= limits[name]
            ),
            TRAINING,
        )
        if part != TRAINING:
            for one in family:
                wanted[part, one.label] -= 1
        parts[part] += family
    return {name: rows for name, rows in parts.items() if rows or name == TRAINING}


def _balanced(rows: Sequence[Labelled], plan: Plan, curated: Curated) -> list[Labelled]:
    """Return the rows, with the most frequent label cut to its maximum share; lowest agreement goes first."""
    by_label = Counter(row.label for row in rows)
    label, count = by_label.most_common(1)[0] if rows else ("", 0)
    others = len(rows) - count
    share = plan.maximum_label_share
    if not rows or share >= 1 or count <= share * len(rows) or not others:
        return list(rows)
    keep = int(share * others / (1 - share))
    dominated = [row for row in rows if row.label == label]
    return _without(rows, _surest(dominated, plan)[keep:], f"too many of {label}", curated)


def _limited(curated: Curated, plan: Plan) -> list[Labelled]:
    """Return at most as many training rows as a job accepts together with the validation rows."""
    rows = curated.parts[TRAINING]
    most = ROWS[plan.method][1] - len(curated.parts.get(VALIDATION, ()))
    return _without(rows, _surest(rows, plan)[most:], f"more than {most} rows", curated)


def _surest(rows: Iterable[Labelled], plan: Plan) -> list[Labelled]:
    """Return the rows by descending agreement; equal ones in a random but reproducible order."""
    return sorted(rows, key=lambda row: (-row.agreement, _shuffle_key(row.query, plan.labels)))


def _without(
    rows: Iterable[Labelled], out: Sequence[Labelled], reason: str, curated: Curated
) -> list[Labelled]:
    """Return the rows except those in `out`, which become rejects with this reason."""
    curated.rejects += [Reject(row.query, reason) for row in out]
    queries = {row.query for row in out}
    return [row for row in rows if row.query not in queries]


def _shuffle_key(query: str, seed: str) -> bytes:
    return hashlib.blake2b(f"{seed} {query}".encode(errors="replace"), digest_size=8).digest()
