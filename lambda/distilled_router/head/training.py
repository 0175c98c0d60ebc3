"""Train a classification head, in passes that can be interrupted.

The head is a softmax over categories and "defer", linear in a query's features. Its targets are soft: each
category by its distance from the teacher's labels. How soft is chosen by trials on folds of families.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from distilled_router.data.similarity import families
from distilled_router.head import features as of_queries
from distilled_router.head.artifact import MIDDLE, MOST_LONGEST, Trained
from distilled_router.head.categories import Vector, categories, distance, distances
from distilled_router.head.features import BUCKETS, features
from distilled_router.head.learner import UNIT, Learner
from distilled_router.task.task import Task

VERSION = 1
"""Of the training. A state of another version is not continued."""

TAUS = (0.01, 0.02, 0.04)
"""How soft targets may be: a category at this distance from a label gets 1/e of the label's own share."""
FOLDS = 3
# More rows don't choose better.
_TRIAL_ROWS = 1_000
_EPOCHS = 12
# Few rows are trained on more often: their training then ends as near to the least loss.
_LEAST_VISITS, _LEAST_VISITS_OF_TRIAL = 40_000, 8_000
_RATE = 5.0
# Rows that a pass trains on, in about a second.
_VISITS_A_PASS = 4_000
_MOST_BYTE = 127


class NoLabelsError(ValueError):
    """No training row has a label, so there is nothing to learn."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query and the teacher's answers: weights by label, one for each sample."""

    query: str
    samples: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A training to its end: without the rows of one fold, to choose tau, or of all rows, for the head."""

    tau: float
    fold: int | None = None


class Training:
    """A training in passes of about a second. The same rows give the same bytes, however often it stops.

    Example:
        >>> training = Training.start(rows, negatives, task)
        >>> while not training.is_finished:
        ...     training.run_pass()
        >>> content = artifact.write(training.trained(), threshold=None, about={})
    """

    def __init__(self, rows: Sequence[Labelled], negatives: Sequence[str], task: Task) -> None:
        """Prepare a training; see `start` and `resume`."""
        rows = [row for row in rows if row.samples]
        if not rows:
            raise NoLabelsError("no training row has an answer of the teacher: a head has nothing to learn")
        self._labels = task.labels
        self._digest = _digest(rows, negatives, task)
        self._samples = [[_vector(sample, task.labels) for sample in row.samples] for row in rows]
        self._categories = categories(vector for each in self._samples for vector in each)
        self._apart = distances(self._categories)
        self._queries = [row.query for row in rows]
        self._features = [features(query) for query in (*self._queries, *negatives)]
        # What the state holds.
        self._folds: dict[int, int] = {}
        self._errors: dict[float, float] = dict.fromkeys(TAUS, 0.0)
        self._number = 0
        self._visited = 0
        self._learner = Learner(self._columns)
        self._known_targets: tuple[float, list[list[float]]] = (0.0, [])

    @classmethod
    def start(cls, rows: Sequence[Labelled], negatives: Sequence[str], task: Task) -> Self:
        """Return a training at its beginning.

        Args:
            rows: queries and the teacher's answers. Rows without an answer are left out.
            negatives: texts that are no query.
            task: defines the labels.

        Raises:
            NoLabelsError: No row has an answer.
        """
        training = cls(rows, negatives, task)
        training._folds = _folds(training._queries)
        return training

    @classmethod
    def resume(cls, state: bytes, rows: Sequence[Labelled], negatives: Sequence[str], task: Task) -> Self:
        """Return the training whose `state` this is; one at its beginning if the state is of other rows,
        of another version, or damaged.

        Raises:
            NoLabelsError: No row has an answer.
        """
        training = cls(rows, negatives, task)
        if not training._restore(state):
            training = cls.start(rows, negatives, task)
        return training

    @property
    def is_finished(self) -> bool:
        """Return whether no pass is left."""
        return self._number == len(self._trials())

    def run_pass(self) -> None:
        """Train for about a second.

        Raises:
            ValueError: The training is finished.
        """
        if self.is_finished:
            raise ValueError("the training is finished; no pass is left")
        trial = self._trials()[self._number]
        rows = self._rows_of(trial)
        visits = len(rows) * _epochs(trial, len(rows))
        targets = self._targets(trial.tau)
        end = min(visits, self._visited + _VISITS_A_PASS)
        while self._visited < end:
            epoch, place = divmod(self._visited, len(rows))
            order = random.Random(f"{self._number} {epoch}").sample(rows, len(rows))  # noqa: S311 - no secret
            stop = min(len(rows), place + end - self._visited)
            for row in order[place:stop]:
                rate = _RATE * (1 - self._visited / visits)
                self._learner.learn(self._features[row], targets[row], rate)
                self._visited += 1
        if self._visited == visits:
            self._end(trial)

    def state(self) -> bytes:
        """Return all that `resume` needs to go on after the last pass, in a few megabytes."""
        line = {
            "digest": self._digest,
            "folds": sorted(self._folds.items()),
            "errors": list(self._errors.values()),
            "number": self._number,
            "visited": self._visited,
        }
        content = json.dumps(line).encode() + b"\n" + self._learner.state()
        return hashlib.sha256(content).digest() + content

    def trained(self) -> Trained:
        """Return the trained head.

        Raises:
            ValueError: The training isn't finished.
        """
        if not self.is_finished:
            raise ValueError("the training isn't finished; run the passes that are left")
        weights = self._learner.weights()
        largest = max(max(map(abs, row)) for row in weights)
        scale = max(largest, 1) / _MOST_BYTE
        return Trained(
            labels=self._labels,
            categories=self._categories,
            rows=bytes(MIDDLE + round(weight / scale) for row in weights for weight in row),
            scale=scale * UNIT,
            longest=min(MOST_LONGEST, max(map(len, self._queries))),
            about={
                "training": self._digest,
                "rows": len(self._queries),
                "negatives": len(self._features) - len(self._queries),
                "tau": self._tau(),
                "errors": {str(tau): round(error, 6) for tau, error in self._errors.items()},
            },
        )

    @property
    def _columns(self) -> int:
        return len(self._categories) + 1

    def _trials(self) -> list[_Trial]:
        """Return the trials, in order. The last one makes the head."""
        folds = sorted(set(self._folds.values()))
        trials = [_Trial(tau, fold) for tau in TAUS for fold in folds] if len(folds) > 1 else []
        return [*trials, _Trial(self._tau())]

    def _tau(self) -> float:
        """Return the tau with the least error so far."""
        return min(self._errors, key=lambda tau: self._errors[tau])

    def _rows_of(self, trial: _Trial) -> list[int]:
        """Return the rows that a trial trains on, among them all negatives."""
        count = len(self._queries)
        negatives = range(count, len(self._features))
        if trial.fold is None:
            return [*range(count), *negatives]
        return [*(row for row, fold in self._folds.items() if fold != trial.fold), *negatives]

    def _end(self, trial: _Trial) -> None:
        """Add the error of a trial's fold, and begin the next trial."""
        self._number += 1
        if trial.fold is not None:
            held_out = [row for row, fold in self._folds.items() if fold == trial.fold]
            self._errors[trial.tau] += math.fsum(map(self._error, held_out)) / len(self._folds)
            self._learner, self._visited = Learner(self._columns), 0

    def _error(self, row: int) -> float:
        """Return the mean absolute error of the learner's answer to a row."""
        shares = self._learner.probabilities(self._features[row])[:-1]
        costs = [math.sumprod(shares, each) for each in self._apart]
        answer = self._categories[costs.index(min(costs))]
        samples = self._samples[row]
        return math.fsum(distance(answer, sample) for sample in samples) / len(samples)

    def _target(self, samples: Sequence[Vector], tau: float) -> list[float]:
        """Return the probabilities to learn for a row: for several samples, the mean of theirs."""
        each = [_soft(sample, self._categories, tau) for sample in samples]
        return [*(math.fsum(column) / len(samples) for column in zip(*each, strict=True)), 0.0]

    def _targets(self, tau: float) -> list[list[float]]:
        """Return the target of each row, and of each negative."""
        if self._known_targets[0] != tau:
            known = {each: self._target(each, tau) for each in set(map(tuple, self._samples))}
            defer = [*([0.0] * (self._columns - 1)), 1.0]
            negatives = [defer] * (len(self._features) - len(self._queries))
            self._known_targets = tau, [*(known[tuple(each)] for each in self._samples), *negatives]
        return self._known_targets[1]

    def _restore(self, state: bytes) -> bool:
        """Go on from a state; return False if it is not one of this training."""
        content = state[32:]
        if hashlib.sha256(content).digest() != state[:32]:
            return False
        line, _, weights = content.partition(b"\n")
        values: dict[str, Any] = json.loads(line)
        if values["digest"] != self._digest:
            return False
        self._folds = dict(values["folds"])
        self._errors = dict(zip(TAUS, values["errors"], strict=True))
        self._number, self._visited = values["number"], values["visited"]
        self._learner = Learner.restored(weights, self._columns)
        return True


def _epochs(trial: _Trial, rows: int) -> int:
    least = _LEAST_VISITS if trial.fold is None else _LEAST_VISITS_OF_TRIAL
    return max(_EPOCHS, math.ceil(least / rows))


def _vector(weights: Mapping[str, float], labels: Sequence[str]) -> Vector:
    return tuple(float(weights[label]) for label in labels)


def _soft(vector: Vector, among: Sequence[Vector], tau: float) -> list[float]:
    """Return the share of each category in the target of one label."""
    apart = [distance(vector, category) for category in among]
    powers = [math.exp((min(apart) - each) / tau) for each in apart]
    whole = math.fsum(powers)
    return [power / whole for power in powers]


def _folds(queries: Sequence[str]) -> dict[int, int]:
    """Return the fold of each row that the trials use; a family is in one fold."""
    chance = random.Random("folds")  # noqa: S311 - no secret
    rows = sorted(chance.sample(range(len(queries)), min(_TRIAL_ROWS, len(queries))))
    numbers = families([queries[row] for row in rows])
    order = sorted(set(numbers))
    chance.shuffle(order)
    fold_of = {number: place % FOLDS for place, number in enumerate(order)}
    return {row: fold_of[number] for row, number in zip(rows, numbers, strict=True)}


def _digest(rows: Sequence[Labelled], negatives: Sequence[str], task: Task) -> str:
    """Return the SHA-256 (hex) of all that decides the head."""
    whole = hashlib.sha256()
    given = (VERSION, of_queries.VERSION, BUCKETS, task.labels, list(negatives))
    for value in (
        given,
        *((row.query, [_vector(each, task.labels) for each in row.samples]) for row in rows),
    ):
        whole.update(json.dumps(value).encode() + b"\n")
    return whole.hexdigest()
