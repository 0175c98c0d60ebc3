"""What the teacher is asked: each query of a shard, as often as there are samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """A raw query; `number` is its place among all of them."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One question to the teacher."""

    number: int
    sample: int
    query: str

    @property
    def id(self) -> str:
        """11 letters and digits, as Bedrock's own ids have (Bedrock user guide, batch inference data)."""
        return f"Q{self.number:07d}S{self.sample:02d}"


def records(queries: Iterable[Query], samples: int) -> Iterator[Record]:
    """Every question, query by query."""
    for query in queries:
        for sample in range(samples):
            yield Record(query.number, sample, query.text)
