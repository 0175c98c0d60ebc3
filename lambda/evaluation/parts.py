"""Parts of the questions that can be weak where the whole is good: labels, and robustness slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from distilled_router.release.gate import Gate
from distilled_router.task.robustness import TRAFFIC
from evaluation.intervals import Estimate, means
from evaluation.label_groups import NONE, OTHERS
from evaluation.metrics import METRICS
from evaluation.questions import HOLDOUT
from evaluation.scored import Row, Scored, families_of

LABEL: Literal["label"] = "label"
SLICE: Literal["slice"] = "slice"
ACCURACY, VALID = "dominant_accuracy", "valid_output"
# Of more weak parts, the others are counted.
_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """A label of the hold-out set, or a slice.

    Attributes:
        kind: which of both.
        name: of the label or slice; `other labels` are those with few queries together.
        metric: of the score: the dominant label's accuracy, or valid output where no weights are known.
        score: the candidate's, over the questions that it could be asked.
        questions: their number, with those that could not be asked.
    """

    kind: Literal["label", "slice"]
    name: str
    metric: str
    score: Estimate
    questions: int

    @property
    def title(self) -> str:
        """Return kind and name of a label, and the name of a slice."""
        return f"label {self.name}" if self.kind == LABEL and self.name != OTHERS else self.name

    def __str__(self) -> str:
        """Return name, score and count, e.g. `injections 40.0% of 25 queries`."""
        what = "" if self.metric == ACCURACY else f" ({METRICS[self.metric].title.lower()})"
        return f"{self.title} {self.score.value:.1%} of {self.score.rows:,} queries{what}"


def parts_of(scored: Scored) -> list[Part]:
    """Return all labels and slices of a contender. Labels with few queries are one part, or none."""
    by_label: dict[str, list[Row]] = {name: [] for name in dict.fromkeys(scored.groups) if name != NONE}
    for row, name in zip(scored.holdout, scored.groups, strict=True):
        if name != NONE:
            by_label[name].append(row)
    by_slice: dict[str, list[Row]] = {}
    for row in scored.rows:
        if row[0].slice != HOLDOUT:
            by_slice.setdefault(row[0].slice, []).append(row)
    return [
        *(_part(LABEL, name, rows) for name, rows in by_label.items()),
        *(_part(SLICE, name, rows) for name, rows in by_slice.items()),
    ]


def _part(kind: Literal["label", "slice"], name: str, rows: Sequence[Row]) -> Part:
    metric = VALID if all(question.reference is None for question, _ in rows) else ACCURACY
    weights = [question.count for question, _ in rows] if name == TRAFFIC else []
    column = {metric: [value[metric] for _, value in rows]}
    found = means(column, families_of(rows), weights=weights, shares=[metric])
    return Part(kind=kind, name=name, metric=metric, score=found[metric], questions=len(rows))


def weak(parts: Sequence[Part], whole: Mapping[str, Estimate], gate: Gate) -> list[Part]:
    """Return the parts clearly below the whole hold-out set that the gate sets no limit for; weakest first.

    Clearly means that their 95 % intervals don't overlap; docs/evaluation.md has how often chance does that.
    """
    unlimited = [part for part in parts if not _has_limit(part, gate)]
    found = [part for part in unlimited if part.score.high < whole[part.metric].low]
    return sorted(found, key=lambda part: part.score.value)


def _has_limit(part: Part, gate: Gate) -> bool:
    if part.kind == LABEL:
        return gate.minimum_worst_label_accuracy is not None
    return part.name in (gate.minimum_slice_accuracy or {})


def described(found: Sequence[Part], whole: Mapping[str, Estimate]) -> str:
    """Return weak parts in words; empty if there are none."""
    if not found:
        return ""
    metrics = dict.fromkeys(part.metric for part in found)
    overall = ", ".join(f"{METRICS[name].title.lower()} {whole[name].value:.1%}" for name in metrics)
    named = ", ".join(map(str, found[:_MOST_NAMED]))
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"weak parts: {named}{more}; the whole hold-out set: {overall}"
