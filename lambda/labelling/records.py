"""Records for the teacher: each query of a shard, once per sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from distilled_router.data.conversation import COUNT


@dataclass(frozen=True, slots=True)
class Query:
    """A raw query; `number` is its position in the whole set, `count` how often it was asked."""

    number: int
    text: str
    count: float = 1

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return the query of a shard's row."""
        return cls(int(row["number"]), str(row["query"]), row.get(COUNT, 1))

    def row(self) -> dict[str, Any]:
        """Return the query's row in a shard."""
        return {
            "number": self.number,
            "query": self.text,
            **({COUNT: self.count} if self.count != 1 else {}),
        }


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
