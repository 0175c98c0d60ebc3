"""Select the teacher's reliable answers and split them into training, validation and hold-out sets."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distilled_router.data.conversation import normalised
from distilled_router.data.labelling_plan import Plan
from distilled_router.data.limits import HOLDOUT_ROWS, ROWS, VALIDATION_ROWS
from distilled_router.data.similarity import Neighbours, families
from distilled_router.data.split import Part, largest, shuffle_key, split, traffic_share
from distilled_router.task.task import Task
from labelling.agreement import consensus

TRAINING, VALIDATION, HOLDOUT = "training", "validation", "holdout"
# Queries that are not trained on, although similar ones may be: the evaluation's slice of this name.
TRAFFIC = "traffic"
_DISAGREE, _INVALID, _TOO_MANY = "the samples disagree", "no valid answer", "too many of"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query with the teacher's weights.

    Attributes:
        query: the query.
        weights: those on which the samples agree.
        agreement: share of the samples that agree.
        label: the dominant one.
        count: how often the query was asked.
        samples: the weights of all valid samples, one sample after the other, in the order of the weights'
            labels. Empty if the teacher was asked once.
    """

    query: str
    weights: dict[str, float]
    agreement: float
    label: str
    count: float = 1
    # Compact: memory holds up to 100,000 queries with 5 samples each.
    samples: array[float] = field(default_factory=lambda: array("d"), repr=False)

    def each_sample(self) -> list[dict[str, float]]:
        """Return the weights of each valid sample; the only ones if the teacher was asked once."""
        labels, values = list(self.weights), self.samples
        starts = range(0, len(values), len(labels))
        found = [dict(zip(labels, values[start : start + len(labels)], strict=True)) for start in starts]
        return found or [self.weights]


@dataclass(frozen=True, slots=True)
class Reject:
    """A query that is left out, the reason, and a detail for people who review rejects."""

    query: str
    reason: str
    detail: str = ""
    count: float = 1


@dataclass
class Curated:
    """The parts of a data set, the rejects, and the number of queries by agreement.

    `never_held_out` are queries in families of more than `largest_held_out`, which all stay in training.
    """

    parts: dict[str, list[Labelled]]
    rejects: list[Reject] = field(default_factory=list)
    agreements: Counter[str] = field(default_factory=Counter)
    families: int = 0
    largest_family: int = 0
    never_held_out: Sequence[Labelled] = ()
    largest_held_out: int = 0
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
            **({"holdout": self.represented()} if HOLDOUT in self.parts else {}),
            "teacher_tokens": {"input": self.input_tokens, "output": self.output_tokens},
        }

    def represented(self) -> dict[str, Any]:
        """Return what a split-off hold-out set stands for, as parts of all queries and of their traffic."""
        kept = [row for part in self.parts.values() for row in part]
        everything: list[Labelled | Reject] = [*kept, *self.rejects]
        unsure = [one for one in self.rejects if one.reason in (_DISAGREE, _INVALID)]
        groups: dict[str, Sequence[Labelled | Reject]] = {
            "in_large_families": self.never_held_out,
            "without_a_sure_label": unsure,
        }
        found = {name: _shares(rows, everything) for name, rows in groups.items()}
        missing = {unit: sum(each[unit] for each in found.values()) for unit in ("queries", "traffic")}
        return {"stands_for": {unit: round(1 - share, 4) for unit, share in missing.items()}, **found}

    def notes(self, plan: Plan) -> Iterator[str]:
        """Yield what a reader of the scores, and who pays, should know of the curation."""
        found = self.represented()
        whole, large, unsure = (
            found[name] for name in ("stands_for", "in_large_families", "without_a_sure_label")
        )
        if HOLDOUT in self.parts and whole["queries"] < 1:
            yield (
                f"the hold-out set stands for {whole['queries']:.0%} of the queries and "
                f"{whole['traffic']:.0%} of the traffic: {large['queries']:.0%} of the queries are in "
                f"families of more than {self.largest_held_out} similar ones, which are only trained on, and "
                f"of {unsure['queries']:.0%} the teacher's answers were invalid or disagreed"
            )
        if balanced := sum(one.reason.startswith(_TOO_MANY) for one in self.rejects):
            yield (
                f"labelling.maximum_label_share = {plan.maximum_label_share:g} left out {balanced:,} labels "
                "that were paid for; 1 leaves none out"
            )


def _shares(rows: Sequence[Labelled | Reject], all_rows: Sequence[Labelled | Reject]) -> dict[str, float]:
    """Return the part of all queries that these are, and of their traffic."""
    traffic = sum(one.count for one in all_rows) or 1
    return {
        "queries": round(len(rows) / (len(all_rows) or 1), 4),
        "traffic": round(sum(one.count for one in rows) / traffic, 4),
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
        query, count = str(row["query"]), float(row.get("count", 1))
        curated.input_tokens += int(row["input_tokens"])
        curated.output_tokens += int(row["output_tokens"])
        answers: list[Mapping[str, Any]] = row["answers"]
        weights = [answer.get("weights") for answer in answers]
        found = consensus(weights, task, plan.tolerance)
        curated.agreements[f"{found.agreement if found else 0:.2f}"] += 1
        if found is None:
            curated.rejects.append(Reject(query, _INVALID, str(answers[-1].get("reason", "")), count))
        elif found.agreement < plan.minimum_agreement - 1e-9:
            given = "; ".join(str(list(a["weights"].values())) for a in answers if a.get("weights"))
            curated.rejects.append(Reject(query, _DISAGREE, given, count))
        else:
            label, samples = task.dominant(found.weights), array("d")
            if len(answers) > 1:
                samples.extend(each[name] for each in weights if each for name in task.labels)
            yield Labelled(query, found.weights, found.agreement, label, count, samples)


def _without_similar(
    held_out: Sequence[str], agreed: Sequence[Labelled], curated: Curated
) -> Iterator[Labelled]:
    """Yield the queries that are not in the supplied hold-out set or similar to one in it."""
    exact = {normalised(query) for query in held_out}
    near = Neighbours(held_out)
    for one in agreed:
        place = near.nearest(one.query)
        if normalised(one.query) in exact:
            curated.rejects.append(Reject(one.query, "in the hold-out set", count=one.count))
        elif place is not None:
            curated.rejects.append(
                Reject(one.query, "nearly in the hold-out set", held_out[place], one.count)
            )
        else:
            yield one


def _split(
    agreed: Sequence[Labelled], plan: Plan, curated: Curated, *, with_holdout: bool
) -> dict[str, list[Labelled]]:
    """Assign whole families to the parts, with the configured share of every label."""
    numbers = families([one.query for one in agreed])
    sizes = Counter(numbers)
    curated.families, curated.largest_family = len(sizes), max(sizes.values(), default=0)
    parts = {
        HOLDOUT: Part(plan.holdout_share if with_holdout else 0.0, HOLDOUT_ROWS[1]),
        VALIDATION: Part(plan.validation_share, VALIDATION_ROWS[1]),
    }
    found = split(
        agreed,
        numbers,
        parts,
        rest=TRAINING,
        query=lambda one: one.query,
        label=lambda one: one.label,
        seed=plan.labels,
    )
    if with_holdout:
        most = largest(len(agreed), max(part.share for part in parts.values()))
        never = [one for number, one in zip(numbers, agreed, strict=True) if sizes[number] > most]
        curated.never_held_out, curated.largest_held_out = never, int(most)
        _take_traffic(found, agreed, plan)
    return {name: rows for name, rows in found.items() if rows or name == TRAINING}


def _take_traffic(parts: dict[str, list[Labelled]], agreed: Sequence[Labelled], plan: Plan) -> None:
    """Take some queries out of training, at random and without regard to families, as a part of their own."""
    share = traffic_share(plan.holdout_share, plan.validation_share)
    count = min(HOLDOUT_ROWS[1], round(share * len(agreed)))
    drawn = sorted(parts[TRAINING], key=lambda one: shuffle_key(one.query, f"traffic {plan.labels}"))[:count]
    chosen = {one.query for one in drawn}
    parts[TRAFFIC] = drawn
    parts[TRAINING] = [one for one in parts[TRAINING] if one.query not in chosen]


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
    return _without(rows, _surest(dominated, plan)[keep:], f"{_TOO_MANY} {label}", curated)


def _limited(curated: Curated, plan: Plan) -> list[Labelled]:
    """Return at most as many training rows as a job accepts together with the validation rows."""
    rows = curated.parts[TRAINING]
    most = ROWS[plan.method][1] - len(curated.parts.get(VALIDATION, ()))
    return _without(rows, _surest(rows, plan)[most:], f"more than {most} rows", curated)


def _surest(rows: Iterable[Labelled], plan: Plan) -> list[Labelled]:
    """Return the rows by descending agreement; equal ones in a random but reproducible order."""
    return sorted(rows, key=lambda row: (-row.agreement, shuffle_key(row.query, plan.labels)))


def _without(
    rows: Iterable[Labelled], out: Sequence[Labelled], reason: str, curated: Curated
) -> list[Labelled]:
    """Return the rows except those in `out`, which become rejects with this reason."""
    curated.rejects += [Reject(row.query, reason, count=row.count) for row in out]
    queries = {row.query for row in out}
    return [row for row in rows if row.query not in queries]
