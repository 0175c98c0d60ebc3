"""Groups of hold-out rows by label, so that a rare label counts as much as a frequent one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from distilled_router.task.task import Task

# Rows with which a label is a group. With fewer, one answer would move the group's mean by more than 10 %.
LABEL_ROWS = 10
# The labels with fewer rows, together.
OTHERS = "other labels"
# In no group: there are too few rows of all these labels.
NONE = ""


def label_groups(references: Iterable[Mapping[str, float] | None], task: Task) -> list[str]:
    """Return the group of each row by the dominant label of its reference."""
    labels = [task.dominant(dict(reference)) if reference else NONE for reference in references]
    rows = Counter(labels)
    few = sum(count for label, count in rows.items() if label != NONE and count < LABEL_ROWS)
    rest = OTHERS if few >= LABEL_ROWS else NONE
    return [label if label == NONE or rows[label] >= LABEL_ROWS else rest for label in labels]


def by_group(values: Sequence[float | None], groups: Sequence[str]) -> dict[str, list[float | None]]:
    """Return a column for each group, with None in the rows of others; none if there is only one group."""
    names = [name for name in dict.fromkeys(groups) if name != NONE]
    if len(names) < 2:
        return {}
    return {
        name: [value if group == name else None for value, group in zip(values, groups, strict=True)]
        for name in names
    }
