"""Measure what a student learns from labels that are balanced in different ways.

    python -m benchmarks.balancing                      the project's own data
    python -m benchmarks.balancing ../shared/data       real queries, in the files of that folder

The student is a logistic regression on words and letters that learns the teacher's weights. It is no language
model: what is compared are treatments of the same labels, not how well a student routes. Each set is split by
families, as curation does it, and each treatment gets the same training part. The hold-out part keeps the
share of every label, as traffic has it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any
from zlib import crc32

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.data.conversation import Example, examples, normalised
from distilled_router.data.similarity import families
from distilled_router.task.task import Task

PROJECT = Path(__file__).resolve().parents[1]
SEED = 17
SPLITS = 3
MOST_ROWS = 4_000
HELD_OUT = 0.25
EPOCHS = 6
BUCKETS = 1 << 18
# Rows of one label that a skewed set has.
SKEWED = 0.92
# A smaller set would have too few rows of the other labels.
LEAST_TO_SKEW = 500
# A label with fewer rows in the hold-out part has no accuracy of its own.
LEAST_OF_LABEL = 5

type Rows = Sequence[Example]


# Sets


def given(folder: Path | None, task: Task) -> dict[str, list[Example]]:
    """Return the labelled queries by name of their set."""
    if folder is None:
        rows = [
            row for name in ("training", "holdout") for row in _rows(PROJECT / "data" / f"{name}.jsonl", task)
        ]
        return {"sample": rows}
    teacher = [Example(row["query"], row["weights"]) for row in _json(folder / "teacher_labels.jsonl")]
    hinted = {
        name: [
            Example(row["query"], _weights(row["modalities"], task))
            for row in _json(folder / f"{name}.jsonl")
        ]
        for name in ("tvr", "audiocaps", "didemo", "snips")
    }
    mixed = [row for rows in hinted.values() for row in rows]
    return {"teacher's labels": teacher, "TVR": hinted["tvr"], "all hints": mixed}


def _rows(path: Path, task: Task) -> Iterator[Example]:
    with path.open(encoding="utf-8") as file:
        yield from examples(file, task)


def _json(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _weights(channels: Sequence[str], task: Task) -> dict[str, float]:
    """Return weights by a hint: 0.85 for its channels, 0.15 for the others."""
    others = len(task.labels) - len(channels)
    return {label: 0.85 / len(channels) if label in channels else 0.15 / others for label in task.labels}


def sets(found: Mapping[str, Rows], task: Task) -> Iterator[tuple[str, list[Example]]]:
    """Yield each set as it is, and so thinned that its most frequent label has SKEWED of the rows."""
    for name, rows in found.items():
        unique = list({normalised(row.query): row for row in rows}.values())
        random.Random(SEED).shuffle(unique)  # noqa: S311 - no secret
        yield name, unique[:MOST_ROWS]
        label, count = Counter(task.dominant(row.weights) for row in unique).most_common(1)[0]
        if count < SKEWED * len(unique) and len(unique) > LEAST_TO_SKEW:
            most = [row for row in unique if task.dominant(row.weights) == label]
            others = [row for row in unique if task.dominant(row.weights) != label]
            skewed = most + others[: round(len(most) * (1 - SKEWED) / SKEWED)]
            random.Random(SEED).shuffle(skewed)  # noqa: S311 - no secret
            yield f"{name}, {SKEWED:.0%} {label}", skewed[:MOST_ROWS]


def split(rows: Rows, numbers: Sequence[int], seed: int) -> tuple[list[Example], list[Example]]:
    """Return training and hold-out rows: whole families, about HELD_OUT of the rows."""
    grouped = defaultdict(list)
    for number, row in zip(numbers, rows, strict=True):
        grouped[number].append(row)
    order = list(grouped.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    held_out: list[Example] = []
    training: list[Example] = []
    for family in order:
        fits = len(held_out) + len(family) <= HELD_OUT * len(rows) and len(family) <= 0.02 * len(rows)
        (held_out if fits else training).extend(family)
    return training, held_out


# Treatments of the training rows


def dropped(rows: Rows, task: Task, share: float) -> list[Example]:
    """Return the rows without those of the most frequent label that exceed its share."""
    label, count = Counter(task.dominant(row.weights) for row in rows).most_common(1)[0]
    others = len(rows) - count
    left = count if share >= 1 or not others else min(count, int(share * others / (1 - share)))
    found = []
    for row in rows:
        if task.dominant(row.weights) == label:
            if not left:
                continue
            left -= 1
        found.append(row)
    return found


def repeated(rows: Rows, task: Task, share: float, most: int) -> list[Example]:
    """Return the rows, those of other labels repeated until the most frequent one has its share.

    No row is there more than `most` times.
    """
    label, count = Counter(task.dominant(row.weights) for row in rows).most_common(1)[0]
    others = len(rows) - count
    times = max(1, min(most, round(count * (1 - share) / share / others))) if others else 1
    return [row for row in rows for _ in range(1 if task.dominant(row.weights) == label else times)]


def evened(rows: Rows, task: Task, most: int) -> list[Example]:
    """Return the rows, each label's repeated until it has as many as the most frequent one."""
    counts = Counter(task.dominant(row.weights) for row in rows)
    top = max(counts.values())
    return [row for row in rows for _ in range(min(most, round(top / counts[task.dominant(row.weights)])))]


type Treatment = Callable[[Rows, Task], list[Example]]

TREATMENTS: dict[str, Treatment] = {
    "as labelled": lambda rows, task: list(rows),
    "drop above 0.9": lambda rows, task: dropped(rows, task, 0.9),
    "drop above 0.8": lambda rows, task: dropped(rows, task, 0.8),
    "drop above 0.7": lambda rows, task: dropped(rows, task, 0.7),
    "drop above 0.6": lambda rows, task: dropped(rows, task, 0.6),
    "repeat others to 0.6, at most 3 times": lambda rows, task: repeated(rows, task, 0.6, 3),
    "repeat others to 0.6": lambda rows, task: repeated(rows, task, 0.6, 100),
    "repeat every label to the most frequent": lambda rows, task: evened(rows, task, 100),
}


# The student


class Student:
    """A logistic regression on words, pairs of words and letters, trained by AdaGrad on soft labels."""

    def __init__(self, labels: Sequence[str], seed: int) -> None:
        self._labels = labels
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._weights: dict[int, list[float]] = {}
        self._squares: dict[int, list[float]] = {}

    def learn(self, rows: Rows, epochs: int = EPOCHS, rate: float = 0.15) -> None:
        """Learn the rows' weights."""
        work = [(features(row.query), [row.weights[label] for label in self._labels]) for row in rows]
        count = range(len(self._labels))
        for _ in range(epochs):
            self._chance.shuffle(work)
            for places, target in work:
                slopes = [given - wanted for given, wanted in zip(self._shares(places), target, strict=True)]
                for place in places:
                    weights = self._weights.setdefault(place, [0.0] * len(slopes))
                    squares = self._squares.setdefault(place, [1e-2] * len(slopes))
                    for at in count:
                        slope = slopes[at]
                        squares[at] += slope * slope
                        weights[at] -= rate * slope / math.sqrt(squares[at])

    def answer(self, query: str) -> dict[str, float]:
        """Return the weights for a query."""
        return dict(zip(self._labels, self._shares(features(query)), strict=True))

    def _shares(self, places: Sequence[int]) -> list[float]:
        sums = [0.0] * len(self._labels)
        for place in places:
            if (weights := self._weights.get(place)) is not None:
                for at, weight in enumerate(weights):
                    sums[at] += weight
        top = max(sums)
        powers = [math.exp(value - top) for value in sums]
        whole = sum(powers)
        return [power / whole for power in powers]


def features(query: str) -> list[int]:
    """Return the numbers of a query's features."""
    words = normalised(query).split()
    found = {"", *words, *(f"{one} {two}" for one, two in pairwise(words))}
    for word in words:
        framed = f"<{word}>"
        found.update(f"#{framed[place : place + 4]}" for place in range(max(1, len(framed) - 3)))
    return sorted({crc32(each.encode()) % BUCKETS for each in found})


# Measurement


@dataclass(frozen=True)
class Score:
    """What a student gets right in a hold-out part.

    Attributes:
        accuracy: share of queries whose largest label is right.
        balanced: the mean of this share over labels with LEAST_OF_LABEL rows.
        error: mean absolute error of a weight.
        trained: rows that it saw, with repeats.
        left_out: share of the labels that it did not see.
    """

    accuracy: float
    balanced: float
    error: float
    trained: float
    left_out: float


def score(student: Student, rows: Rows, task: Task) -> tuple[float, float, float]:
    """Return accuracy, balanced accuracy and mean absolute error."""
    right: dict[str, list[bool]] = defaultdict(list)
    errors = []
    for row in rows:
        answer = student.answer(row.query)
        tied = task.dominants(row.weights)
        right[task.dominant(row.weights)].append(task.dominant(answer) in tied)
        errors.append(fmean(abs(answer[label] - row.weights[label]) for label in task.labels))
    each = [fmean(found) for found in right.values() if len(found) >= LEAST_OF_LABEL]
    overall = fmean(correct for found in right.values() for correct in found)
    return overall, fmean(each), fmean(errors)


def measured(rows: Rows, task: Task) -> dict[str, Score]:
    """Return the score of each treatment, the mean of SPLITS splits."""
    numbers = families([row.query for row in rows])
    found: dict[str, list[Score]] = defaultdict(list)
    for number in range(SPLITS):
        training, held_out = split(rows, numbers, SEED + number)
        known: dict[int, tuple[float, float, float]] = {}  # treatments that change as much do the same
        for name, treat in TREATMENTS.items():
            treated = treat(training, task)
            if (count := len(treated)) not in known:
                student = Student(task.labels, SEED + number)
                student.learn(treated)
                known[count] = score(student, held_out, task)
            kept = len({row.query for row in treated}) / len(training)
            found[name].append(Score(*known[count], count, 1 - kept))
    return {
        name: Score(*(fmean(getattr(each, field) for each in scores) for field in Score.__dataclass_fields__))
        for name, scores in found.items()
    }


def table(name: str, rows: Rows, task: Task) -> Iterator[str]:
    """Yield the table of a set."""
    labels = Counter(task.dominant(row.weights) for row in rows)
    shares = ", ".join(f"{label} {count / len(rows):.0%}" for label, count in labels.most_common())
    yield f"**{name}**: {len(rows):,} queries ({shares})"
    yield ""
    yield "| training labels | accuracy | balanced | mean absolute error | labels left out | rows trained |"
    yield "|---|---:|---:|---:|---:|---:|"
    for treatment, found in measured(rows, task).items():
        yield (
            f"| {treatment} | {found.accuracy:.3f} | {found.balanced:.3f} | {found.error:.3f} "
            f"| {found.left_out:.0%} | {found.trained:,.0f} |"
        )
    yield ""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder with real queries; by default data/")
    options = parser.parse_args()
    task, started = Task.load(), time.process_time()
    for name, rows in sets(given(options.folder, task), task):
        print("\n".join(table(name, rows, task)), flush=True)
    print(f"{SPLITS} splits of each set, seed {SEED}; {time.process_time() - started:,.0f} s of CPU time.")


if __name__ == "__main__":
    main()
