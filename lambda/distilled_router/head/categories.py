"""The categories that a head chooses from: the different labels of the training rows, or merged ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import repeat
from math import fsum
from operator import add, sub

MOST_CATEGORIES = 63
"""With the category "defer", these are the 64 columns of a head."""

type Vector = tuple[float, ...]

# Merging compares all pairs, so it starts from at most so many vectors, rounded to one of these steps.
_MOST_COMPARED = 400
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_ROUNDS = 5
# What it costs more to merge vectors whose largest labels differ.
_OTHER_DOMINANT = 0.1


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the mean absolute error between two vectors."""
    return fsum(map(abs, map(sub, one, other))) / len(one)


def distances(vectors: Sequence[Vector]) -> list[list[float]]:
    """Return the distance of each vector from each."""
    columns = list(zip(*vectors, strict=True))
    found = []
    for place, one in enumerate(vectors):
        sums = [0.0] * place
        for value, column in zip(one, columns, strict=True):
            # `sums` is the shortest, so only the vectors before this one are compared.
            sums = list(map(add, sums, map(abs, map(sub, repeat(value), column))))
        found.append([whole / len(one) for whole in sums])
    return [[*row, 0.0, *(other[place] for other in found[place + 1 :])] for place, row in enumerate(found)]


def categories(vectors: Iterable[Vector], most: int = MOST_CATEGORIES) -> tuple[Vector, ...]:
    """Return at most `most` categories for label vectors, in a fixed order: the vectors if they are few.

    Of more vectors, those are given up, one after another, whose replacement by the nearest other one costs
    the least error; then each category becomes the mean of its vectors.
    """
    counts = Counter(tuple(round(value, 6) for value in vector) for vector in vectors)
    if len(counts) <= most:
        return tuple(sorted(counts))
    kept = _reduced(_rounded(counts), most)
    for _ in range(_ROUNDS):
        kept = _means(counts, kept)
    return tuple(sorted(kept))


def _rounded(counts: Counter[Vector]) -> Counter[Vector]:
    """Return the vectors rounded, so that at most _MOST_COMPARED are different."""
    found = counts
    for step in _STEPS:
        if len(found) <= _MOST_COMPARED:
            break
        found = Counter()
        for vector, count in counts.items():
            found[tuple(round(round(value / step) * step, 6) for value in vector)] += count
    return Counter(dict(found.most_common(_MOST_COMPARED)))


def _reduced(counts: Counter[Vector], most: int) -> list[Vector]:
    """Return `most` of the vectors."""
    vectors = sorted(counts)
    weights = [float(counts[vector]) for vector in vectors]
    apart = [[_cost(one, other) for other in vectors] for one in vectors]
    left = list(range(len(vectors)))
    near = {one: min((apart[one][other], other) for other in left if other != one) for one in left}
    while len(left) > most:
        gone = min(left, key=lambda one: (weights[one] * near[one][0], one))
        heir = near.pop(gone)[1]
        left.remove(gone)
        weights[heir] += weights[gone]
        for one in left:
            if near[one][1] == gone:
                near[one] = min((apart[one][other], other) for other in left if other != one)
    return [vectors[one] for one in left]


def _cost(one: Vector, other: Vector) -> float:
    return distance(one, other) + (_OTHER_DOMINANT if _dominant(one) != _dominant(other) else 0.0)


def _dominant(vector: Vector) -> int:
    return vector.index(max(vector))


def _means(counts: Counter[Vector], kept: Sequence[Vector]) -> list[Vector]:
    """Return the mean of the vectors that are nearest to each category; a category without one ends."""
    sums: dict[int, list[float]] = {}
    for vector, count in sorted(counts.items()):
        index = min(range(len(kept)), key=lambda each: _cost(vector, kept[each]))
        whole = sums.setdefault(index, [0.0] * (len(vector) + 1))
        for place, value in enumerate((*vector, 1.0)):
            whole[place] += count * value
    return list(
        dict.fromkeys(tuple(round(v / whole[-1], 6) for v in whole[:-1]) for _, whole in sorted(sums.items()))
    )
