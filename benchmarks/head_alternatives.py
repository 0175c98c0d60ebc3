"""What else was tried for the classification head, in the shipped code with one thing changed.

    python -m benchmarks.head_alternatives    a quarter of an hour of CPU time; prints the table of README.md

Each form is trained on the sample data and asked the hold-out set, and on the teacher's real labels beside
the project by folds of families, if they are there.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean
from typing import Any
from unittest.mock import patch

from benchmarks import head_data as data
from benchmarks.head import FOLDS, WRONG, Answered, read, trained
from distilled_router.data.conversation import Example
from distilled_router.head import features as of_queries
from distilled_router.head import learner, training
from distilled_router.head.calibration import MOST_RISK
from distilled_router.head.categories import distance
from distilled_router.head.features import features
from distilled_router.head.learner import Learner
from distilled_router.head.model import DEFER_RISK, Head
from distilled_router.task.task import Task

NEIGHBOURS = 5
# Visits and rate of the regression: those of the shipped training.
VISITS, RATE = 40_000, 5.0

type Vector = Sequence[float]
type Ask = Callable[[str], tuple[Vector, float]]
"""Returns the weights for a query, and their risk."""
type Train = Callable[[Sequence[Example], Task], Ask]


def shipped(rows: Sequence[Example], task: Task) -> Ask:
    """Train the head of a release."""
    head = read(trained(rows, task), task)

    def ask(query: str) -> tuple[Vector, float]:
        answer = head.answer(query)
        return [answer.weights[label] for label in task.labels], answer.risk

    return ask


@dataclass(frozen=True)
class Form:
    """A form of the head: constants that differ, by module, or another way to train."""

    name: str
    changes: Sequence[tuple[Any, Mapping[str, Any]]] = ()
    train: Train = shipped


def by_confidence(rows: Sequence[Example], task: Task) -> Ask:
    """Order the answers by the probability of the chosen category instead of the expected error."""
    head = read(trained(rows, task), task)

    def ask(query: str) -> tuple[Vector, float]:
        answer = head.answer(query)
        weights = [answer.weights[label] for label in task.labels]
        return weights, 1 - head.probabilities(query)[answer.category]

    return ask


def regression(rows: Sequence[Example], task: Task) -> Ask:
    """Learn the weights themselves: a softmax over the labels, of the same features."""
    found = [features(row.query) for row in rows]
    targets = [[row.weights[label] for label in task.labels] for row in rows]
    model = Learner(len(task.labels))
    for visit in range(VISITS):
        row = visit * 7_919 % len(rows)
        model.learn(found[row], targets[row], RATE * (1 - visit / VISITS))

    def ask(query: str) -> tuple[Vector, float]:
        weights = model.probabilities(features(query))
        return weights, 1 - max(weights)

    return ask


def with_neighbours(part: float) -> Train:
    """Mix the head's probabilities with a vote of the nearest training queries, by their features alone."""

    def train(rows: Sequence[Example], task: Task) -> Ask:
        head = read(trained(rows, task), task)
        known = [set(features(row.query)) for row in rows]
        places = [_nearest(head, [row.weights[label] for label in task.labels]) for row in rows]
        apart = [
            [distance(one, other) for other in head.trained.categories] for one in head.trained.categories
        ]

        def ask(query: str) -> tuple[Vector, float]:
            shares, found = head.probabilities(query), set(features(query))
            alike = sorted(
                ((len(found & one) / math.sqrt(len(found) * len(one)), row) for row, one in enumerate(known)),
                reverse=True,
            )[:NEIGHBOURS]
            votes = [0.0] * len(shares)
            for likeness, row in alike:
                votes[places[row]] += likeness
            whole = math.fsum(votes) or 1.0
            mixed = [
                (1 - part) * share + part * vote / whole for share, vote in zip(shares, votes, strict=True)
            ]
            defer = mixed.pop()
            costs = [math.sumprod(mixed, each) for each in apart]
            least = min(range(len(costs)), key=costs.__getitem__)
            return head.trained.categories[least], costs[least] / math.fsum(mixed) + DEFER_RISK * defer

        return ask

    return train


def _nearest(head: Head, weights: Vector) -> int:
    found = head.trained.categories
    return min(range(len(found)), key=lambda each: distance(found[each], weights))


FORMS = (
    Form("as shipped"),
    *(Form(f"tau {tau:g} for all", [(training, {"TAUS": (tau,)})]) for tau in (0.001, 0.01, 0.02, 0.04, 0.1)),
    *(Form(f"rate {rate:g}", [(training, {"_RATE": rate})]) for rate in (1.0, 2.5, 10.0, 30.0)),
    *(
        Form(
            f"{times:g} times as many visits",
            [
                (
                    training,
                    {
                        "_EPOCHS": max(1, int(12 * times)),
                        "_LEAST_VISITS": int(40_000 * times),
                        "_LEAST_VISITS_OF_TRIAL": int(8_000 * times),
                    },
                )
            ],
        )
        for times in (0.25, 3)
    ),
    Form("n-grams of 3 to 5", [(of_queries, {"_NGRAMS": (3, 4, 5)})]),
    Form("n-grams of 3 only", [(of_queries, {"_NGRAMS": (3,)})]),
    Form("no n-grams", [(of_queries, {"_NGRAMS": ()})]),
    Form("no pairs of words", [(of_queries, {"pairwise": lambda _: ()})]),
    *(
        Form(f"{count:,} features", [(module, {"BUCKETS": count}) for module in (of_queries, learner)])
        for count in (4_096,)
    ),
    *(Form(f"neighbours, {part:.0%}", train=with_neighbours(part)) for part in (0.25, 0.5)),
    Form("ordered by confidence", train=by_confidence),
    Form("regression of the weights", train=regression),
)


def measured(form: Form, task: Task) -> Iterator[str]:
    """Yield the cells of a form."""
    with ExitStack() as stack:
        for module, values in form.changes:
            stack.enter_context(patch.multiple(module, **values))
        sample = _asked(form.train(data.sample("training", task), task), data.sample("holdout", task), task)
        yield from _cells(sample)
        accepted = [one for one in sample if one.risk <= MOST_RISK]
        yield f"{len(accepted) / len(sample):.0%}"
        yield f"{fmean(one.is_wrong for one in accepted):.1%}" if accepted else ""
        real: list[Answered] = []
        for rows, held_out in data.folds(data.teacher_labels(), FOLDS, 1) if data.REAL.exists() else ():
            real += _asked(form.train(rows, task), held_out, task)
        yield from _cells(real) if real else ("", "", "")


def _asked(ask: Ask, rows: Sequence[Example], task: Task) -> list[Answered]:
    found = []
    for row in rows:
        weights, risk = ask(row.query)
        given = dict(zip(task.labels, weights, strict=True))
        error = fmean(abs(given[label] - row.weights[label]) for label in task.labels)
        found.append(Answered(risk, error, task.is_dominant_right(row.weights, given)))
    return found


def _cells(found: Sequence[Answered]) -> Iterator[str]:
    order = sorted(found, key=lambda one: one.risk)
    yield f"{fmean(one.error for one in order):.3f}"
    yield f"{fmean(one.right for one in order):.3f}"
    yield f"{fmean(one.error for one in order[: len(order) // 2]):.3f}"


def main() -> None:
    """Measure all forms, and print the table."""
    task = Task.load()
    print(f"An answer is wrong by its dominant label, or by an error above {WRONG:g}.\n")
    print(
        "| form | sample: error | dominant | surest half | sure of | of these wrong "
        "| real: error | dominant | surest half |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for form in FORMS:
        print(f"| {form.name} | {' | '.join(measured(form, task))} |", flush=True)
    print(f"\nPython {platform.python_version()}, {platform.machine()}.")


if __name__ == "__main__":
    main()
