"""Records for the teacher: each query of a shard, once per sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """A raw query; `number` is its position in the whole set."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One request to the teacher."""

    number: int
    sample: int
    query: str

    @property
    def id(self) -> str:
        """Return 11 letters and digits, like Bedrock's own ids (Bedrock user guide, batch inference data)."""
        return f"Q{self.number:07d}S{self.sample:02d}"


def records(queries: Iterable[Query], samples: int) -> Iterator[Record]:
    """Yield `samples` records for each query."""
    for query in queries:
        for sample in range(samples):
            yield Record(query.number, sample, query.text)
