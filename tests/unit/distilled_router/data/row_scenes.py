"""Rows for the tests of the data set's rules, and short ways to check them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from distilled_router.data.conversation import row
from distilled_router.data.dataset_rules import Report, check_dataset
from distilled_router.data.findings import Finding
from distilled_router.task.task import Task

TASK = Task.load()
WEIGHTS = {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.10}
LABEL = "85 0 5 10"
USER = {"role": "user", "content": [{"text": "a tin drum"}]}
ASSISTANT = {"role": "assistant", "content": [{"text": LABEL}]}
# One for each label, so that a good data set is balanced.
TURNS = [
    dict(zip(WEIGHTS, [*[0.05] * place, 0.85, *[0.05] * (3 - place)], strict=True)) for place in range(4)
]


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@cache
def good(count: int, words: str = "a red kite") -> list[bytes]:
    return [encoded(row(TASK, f"{words} number {index}", TURNS[index % 4])) for index in range(count)]


HOLDOUT = good(100, "a blue boat")


def check(training: list[bytes], holdout: list[bytes] | None = None, method: str = "distillation") -> Report:
    return check_dataset(training, HOLDOUT if holdout is None else holdout, TASK, method)


def checked_line(line: bytes, method: str = "distillation") -> Finding:
    """The only finding of a data set that is good but for its line 51."""
    training = good(150)
    report = check([*training[:50], line, *training[50:]], method=method)
    (finding,) = report.findings
    assert (finding.file, finding.line) == ("training", 51)
    return finding


def changed(**changes: Any) -> bytes:
    return encoded({**row(TASK, "a tin drum", WEIGHTS), **changes})
