"""Agreement between the teacher's samples for one query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilled_router.task.task import Task

Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Consensus:
    """The weights on which samples agree, and the share of all samples that agree, from 0 to 1."""

    weights: dict[str, float]
    agreement: float


def consensus(answers: Sequence[Weights | None], task: Task, tolerance: float) -> Consensus | None:
    """Return the weights on which most samples of a query agree; None if no sample has weights.

    Two samples agree if no weight differs by more than `tolerance` and they share a dominant label. The
    result is the mean of the largest group of samples that agree with one sample; of equal groups, the first.
    A sample without weights agrees with no other, and counts in the total.
    """
    valid = [answer for answer in answers if answer]
    if not valid:
        return None
    groups = [[other for other in valid if _agree(one, other, task, tolerance)] for one in valid]
    group = max(groups, key=len)
    mean = {label: math.fsum(one[label] for one in group) / len(group) for label in task.labels}
    total = math.fsum(mean.values())
    return Consensus({label: value / total for label, value in mean.items()}, len(group) / len(answers))


def _agree(one: Weights, other: Weights, task: Task, tolerance: float) -> bool:
    near = all(abs(one[label] - other[label]) <= tolerance + 1e-9 for label in task.labels)
    return near and bool(task.dominants(one) & task.dominants(other))
