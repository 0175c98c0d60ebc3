"""Answer queries by a trained classification head."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple, Self

from distilled_router.head.artifact import HeadError, Trained, read
from distilled_router.head.categories import distances
from distilled_router.head.features import MOST_CHARACTERS, features

__all__ = ["Head", "HeadAnswer", "HeadError"]

LONGER = 1.5
"""A query that is more than this many times as long as the longest trained one is left to the model."""
DEFER_RISK = 0.25
"""What deferring adds to the risk, times its probability: the error of an answer without knowledge."""

# So many rows of bytes fit lanes of 16 bits.
_MOST_ADDED = 256


class HeadAnswer(NamedTuple):
    """A head's answer.

    Attributes:
        weights: by label; they sum to 1.
        risk: expected mean absolute error plus DEFER_RISK times the probability of "defer"; infinite for a
            query that is too long.
        category: index of the category in the head's file.
    """

    weights: dict[str, float]
    risk: float
    category: int


class Head:
    """A classification head. Threads may share it.

    Example:
        >>> head = Head.read(content, task.labels)
        >>> answer = head.answer("a red car at night")
        >>> answer.weights if head.accepts(answer) else None
    """

    def __init__(self, trained: Trained, threshold: float | None) -> None:
        self.threshold = threshold
        self.trained = trained
        self._longest = min(MOST_CHARACTERS, int(LONGER * trained.longest))
        self._answers = [dict(zip(trained.labels, each, strict=True)) for each in trained.categories]
        self._apart = distances(trained.categories)
        self._table = _Table(trained.rows, trained.columns)

    @classmethod
    def read(cls, content: bytes, labels: tuple[str, ...]) -> Self:
        """Return the head of a file.

        Raises:
            HeadError: It is not a whole and unchanged head of this version for these labels.
        """
        return cls(*read(content, labels))

    def is_too_long(self, query: str) -> bool:
        """Return whether a query is so long that the head leaves it to the model. Cheap.

        It is much longer than the trained ones, or longer than what the head reads.
        """
        return len(query) > self._longest

    def answer(self, query: str) -> HeadAnswer:
        """Return the weights for a query and their risk, for any text."""
        shares = self.probabilities(query)
        defer = shares.pop()
        known = math.fsum(shares)
        costs = [math.sumprod(shares, each) for each in self._apart]
        category = min(range(len(costs)), key=costs.__getitem__)
        risk = costs[category] / known + DEFER_RISK * defer if known > 1e-12 else DEFER_RISK
        if self.is_too_long(query):
            risk = math.inf
        return HeadAnswer(dict(self._answers[category]), risk, category)

    def accepts(self, answer: HeadAnswer) -> bool:
        """Return whether the head is sure enough of an answer to give it first."""
        return self.threshold is not None and answer.risk <= self.threshold

    def probabilities(self, query: str) -> list[float]:
        """Return the probability of each category, and of "defer"."""
        found = features(query)
        sums = self._sums(found)
        scale = self.trained.scale / math.sqrt(len(found))
        top = max(sums)
        powers = [math.exp((value - top) * scale) for value in sums]
        whole = math.fsum(powers)
        return [power / whole for power in powers]

    def _sums(self, found: Sequence[int]) -> Sequence[int]:
        """Return the sum of the features' rows, by column; a constant is added to all columns."""
        groups = (found[start : start + _MOST_ADDED] for start in range(0, len(found), _MOST_ADDED))
        sums = [self._table.added(group) for group in groups]
        return sums[0] if len(sums) == 1 else [sum(column) for column in zip(*sums, strict=True)]


class _Table(dict[int, int]):
    """The rows of the features that queries had so far, as integers with a lane of 16 bits for each column.

    One addition of integers then adds all columns. Columns with even numbers come first, then the others.
    """

    def __init__(self, rows: bytes, columns: int) -> None:
        super().__init__()
        self._rows, self._columns = rows, columns
        halves = (columns + 1) // 2
        self._lanes = int.from_bytes(b"\xff\x00" * halves, "little")
        self._half = 16 * halves
        self._numbers = struct.Struct(f"<{2 * halves}H")

    def __missing__(self, feature: int) -> int:
        start = feature * self._columns
        row = int.from_bytes(self._rows[start : start + self._columns], "little")
        found = self[feature] = row & self._lanes | (row >> 8 & self._lanes) << self._half
        return found

    def added(self, found: Sequence[int]) -> list[int]:
        """Return the sum of at most _MOST_ADDED rows, by column."""
        whole = sum(map(self.__getitem__, found))
        numbers = self._numbers.unpack(whole.to_bytes(self._numbers.size, "little"))
        sums = [0] * self._columns
        halves = len(numbers) // 2
        sums[::2], sums[1::2] = numbers[:halves], numbers[halves : halves + self._columns // 2]
        return sums
