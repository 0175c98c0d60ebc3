"""A softmax over columns, linear in features, that learns by stochastic gradient descent.

Weights are whole numbers of a fixed unit, a row of `lanes` for each feature: so learning is exact, and
continues after a stop with the same bits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Self

from distilled_router.head.features import BUCKETS
from distilled_router.head.lanes import Lanes

# Binary places of gradients and of rates; weights have their sum, and so 35 places before the point.
_GRADIENT, _RATE = 16, 12
UNIT = 2.0 ** -(_GRADIENT + _RATE)
# A gradient whose largest part is smaller changes nothing that counts.
_LEAST_GRADIENT = 1e-3


class Learner:
    """The weights under training."""

    def __init__(self, columns: int) -> None:
        self._lanes = Lanes(columns)
        self._rows = [0] * BUCKETS

    def learn(self, found: Sequence[int], target: Sequence[float], rate: float) -> None:
        """Take a step down the gradient of the KL divergence of a target and the prediction."""
        shares = self.probabilities(found)
        slopes = [share - wanted for share, wanted in zip(shares, target, strict=True)]
        if max(map(abs, slopes)) < _LEAST_GRADIENT:
            return
        step = round(rate / math.sqrt(len(found)) * (1 << _RATE))
        change = step * self._lanes.packed([round(slope * (1 << _GRADIENT)) for slope in slopes])
        rows = self._rows
        for feature in found:
            rows[feature] -= change

    def probabilities(self, found: Sequence[int]) -> list[float]:
        """Return the probability of each column."""
        sums = self._lanes.unpacked(sum(map(self._rows.__getitem__, found)))
        scale, top = UNIT / math.sqrt(len(found)), max(sums)
        powers = [math.exp((value - top) * scale) for value in sums]
        whole = math.fsum(powers)
        return [power / whole for power in powers]

    def weights(self) -> list[tuple[int, ...]]:
        """Return the weights of each feature, in UNIT."""
        return [self._lanes.unpacked(row) for row in self._rows]

    def state(self) -> bytes:
        """Return the weights, compressed."""
        return zlib.compress(b"".join(map(self._lanes.written, self._rows)), 1)

    @classmethod
    def restored(cls, state: bytes, columns: int) -> Self:
        """Return the learner whose state this is.

        Raises:
            ValueError: The state is not that of such a learner.
        """
        learner = cls(columns)
        size = learner._lanes.size
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(state, size * BUCKETS + 1)
        except zlib.error as error:
            raise ValueError(f"the weights can't be read: {error}") from error
        if len(content) != size * BUCKETS:
            raise ValueError(f"{len(content):,} bytes of weights, expected {size * BUCKETS:,}")
        learner._rows = [
            learner._lanes.read(content[start : start + size]) for start in range(0, len(content), size)
        ]
        return learner
