"""Add and scale rows of numbers as single integers, which pure Python does fast and exactly.

A row has one number a column, each in a lane of 64 bits of one integer: the sum of the numbers, each times a
power of 2**64. So one addition of integers adds all columns of two rows, also where numbers are negative.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

LANE = 64


class Lanes:
    """Converts between rows as integers and their columns."""

    def __init__(self, columns: int) -> None:
        self._numbers = struct.Struct(f"<{columns}q")
        # The highest bit of each lane: added, it makes all lanes positive, so none borrows from the next.
        self._signs = sum(1 << (LANE * column + LANE - 1) for column in range(columns))

    @property
    def size(self) -> int:
        """Return the number of bytes of a row."""
        return self._numbers.size

    def packed(self, numbers: Sequence[int]) -> int:
        """Return a row with these numbers."""
        return self.read(self._numbers.pack(*numbers))

    def unpacked(self, row: int) -> tuple[int, ...]:
        """Return the numbers of a row. Each must fit 64 bits."""
        return self._numbers.unpack(self.written(row))

    def written(self, row: int) -> bytes:
        """Return a row as bytes."""
        return ((row + self._signs) ^ self._signs).to_bytes(self.size, "little")

    def read(self, content: bytes) -> int:
        """Return the row that `written` wrote."""
        return (int.from_bytes(content, "little") ^ self._signs) - self._signs
