"""Warn about data with which a model that hardly reads the query would do well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

# Part of the labelled rows. A student that always answers this label would be right as often.
MOST_LABEL_SHARE = 0.70
# With fewer rows, shares mean nothing.
BALANCE_ROWS = 20


def imbalances(answers: Iterable[tuple[Collection[str], int]], labels: Iterable[str]) -> Iterator[str]:
    """Yield what is unbalanced in labelled rows.

    Args:
        answers: for each different answer its largest labels, and the number of its rows.
        labels: all labels.
    """
    groups = list(answers)
    rows = sum(count for _, count in groups)
    if rows < BALANCE_ROWS:
        return
    if len(groups) == 1:
        yield f"all {rows} rows have the same answer, which a student could only repeat; look at the labels"
        return
    counts = Counter(dict.fromkeys(labels, 0))
    for largest, count in groups:
        counts.update(dict.fromkeys(largest, count))
    for label, count in counts.items():
        if not count:
            yield f"no row has {label} as its largest label; add queries that need it"
        elif count > MOST_LABEL_SHARE * rows:
            yield (
                f"{label} is the largest label of {count / rows:.0%} of the rows, recommended at most "
                f"{MOST_LABEL_SHARE:.0%}; add queries that need another, or remove some"
            )
