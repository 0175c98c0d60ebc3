"""Split queries into parts by families of similar queries, so that parts share no near duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Largest share of the held-out rows that one family may have, so that no family dominates the evaluation.
LARGEST_HELD_OUT = 0.1
# Queries drawn at random beside the hold-out set: half as many as are held out, and half of the rest at most.
_TRAFFIC_OF_HOLDOUT = _TRAFFIC_OF_REST = 0.5


@dataclass(frozen=True)
class Part:
    """What a part should get: a share of the rows of each label, and at most `limit` rows."""

    share: float
    limit: int


def split[Row](
    rows: Sequence[Row],
    numbers: Sequence[int],
    parts: Mapping[str, Part],
    *,
    rest: str,
    query: Callable[[Row], str],
    label: Callable[[Row], str],
    seed: str,
) -> dict[str, list[Row]]:
    """Return the rows of each part, and the other rows under the name `rest`.

    Families are taken in the order of a hash of their first query, which is random but reproducible. One with
    more than LARGEST_HELD_OUT of a part stays in the rest.

    Args:
        rows: what is split.
        numbers: the number of each row's family.
        parts: what each part should get, by its name; the first one is served first.
        rest: name of the other rows' part.
        query, label: return a row's query and label.
        seed: decides the order.
    """
    grouped: dict[int, list[Row]] = defaultdict(list)
    for number, row in zip(numbers, rows, strict=True):
        grouped[number].append(row)
    totals = Counter(map(label, rows))
    wanted = {(name, each): part.share * n for name, part in parts.items() for each, n in totals.items()}
    found: dict[str, list[Row]] = {rest: [], **{name: [] for name in parts}}
    most = largest(len(rows), max((part.share for part in parts.values()), default=0.0))
    for family in sorted(grouped.values(), key=lambda members: shuffle_key(query(members[0]), seed)):
        common = Counter(map(label, family)).most_common(1)[0][0]
        place = next(
            (
                name
                for name, part in parts.items()
                if wanted[name, common] >= len(family) - 0.5
                and len(family) <= most
                and len(found[name]) + len(family) <= part.limit
            ),
            rest,
        )
        if place != rest:
            for row in family:
                wanted[place, label(row)] -= 1
        found[place] += family
    return found


def traffic_share(holdout_share: float, validation_share: float) -> float:
    """Return the part of all queries that is drawn at random, without regard to families."""
    rest = 1 - holdout_share - validation_share
    return min(_TRAFFIC_OF_HOLDOUT * holdout_share, _TRAFFIC_OF_REST * rest)


def trained_share(holdout_share: float, validation_share: float) -> float:
    """Return the part of all queries that is trained on."""
    return 1 - holdout_share - validation_share - traffic_share(holdout_share, validation_share)


def largest(rows: int, share: float) -> float:
    """Return the number of rows that a family in a part with this share of all rows may have."""
    return max(1.0, LARGEST_HELD_OUT * rows * share)


def shuffle_key(query: str, seed: str) -> bytes:
    """Return the place of a query in a random but reproducible order."""
    return hashlib.blake2b(f"{seed} {query}".encode(errors="replace"), digest_size=8).digest()
