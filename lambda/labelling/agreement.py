"""How sure the teacher is of a query: whether its samples agree, and what they agree on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilled_router.task.task import Task

Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Consensus:
    """The weights on which samples agree, and the part of all samples that does."""

    weights: dict[str, float]
    agreement: float


def consensus(answers: Sequence[Weights | None], task: Task, tolerance: float) -> Consensus | None:
    """What a query's samples agree on; None where none of them holds weights.

    Two samples agree if no weight differs by more than `tolerance` and they share a largest label. The sample
    with which most agree stands for all (of equal ones the first), and its weights become the mean of those
    which agree with it. Samples without weights agree with none, and count.
    """
    valid = [answer for answer in answers if answer]
    if not valid:
        return None
    circles = [[other for other in valid if _agree(one, other, task, tolerance)] for one in valid]
    circle = max(circles, key=len)
    mean = {label: math.fsum(one[label] for one in circle) / len(circle) for label in task.labels}
    total = math.fsum(mean.values())
    return Consensus({label: value / total for label, value in mean.items()}, len(circle) / len(answers))


def _agree(one: Weights, other: Weights, task: Task, tolerance: float) -> bool:
    near = all(abs(one[label] - other[label]) <= tolerance + 1e-9 for label in task.labels)
    return near and bool(task.dominants(one) & task.dominants(other))
