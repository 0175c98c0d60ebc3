"""Real queries and labels, which are not part of this project: they are beside it, or absent.

`teacher_labels.jsonl` holds weights from a large teacher. The other files say in which channel people found
an answer: a hint, which a fixed rule turns into a label here, to exercise the system. Neither kind makes a
score meaningful for routing quality.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from distilled_router.data.conversation import Example, normalised, row
from distilled_router.task.task import Task

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
HINTED = ("tvr", "audiocaps", "didemo", "snips")


def required(name: str) -> list[dict[str, object]]:
    """Return the rows of a file; skip the test, with a message, if the data is absent."""
    path = FOLDER / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"real data is absent: no {path.name} beside the project")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_present() -> bool:
    """Return whether the real data is beside the project."""
    return (FOLDER / "teacher_labels.jsonl").exists()


def examples(task: Task, *, hinted: int, seed: int = 7) -> list[Example]:
    """Return all teacher labels and `hinted` queries of each file, shuffled, without duplicates."""
    random = Random(seed)
    found: dict[str, Example] = {}
    for labelled in required("teacher_labels"):
        given = labelled["weights"]
        assert isinstance(given, dict)
        weights = {label: float(given[label]) for label in task.labels}
        example = Example(str(labelled["query"]), weights)
        found.setdefault(normalised(example.query), example)
    for name in HINTED:
        rows = required(name)
        for hint in random.sample(rows, min(hinted, len(rows))):
            example = Example(str(hint["query"]), _weights(hint["modalities"], task))
            found.setdefault(normalised(example.query), example)
    usable = [example for example in found.values() if len(example.query) <= task.max_query_characters]
    random.shuffle(usable)
    return usable


def _weights(modalities: object, task: Task) -> dict[str, float]:
    """Return weights: 0.85 shared by the hint's channels, 0.15 by the others."""
    assert isinstance(modalities, list)
    others = len(task.labels) - len(modalities)
    return {label: 0.85 / len(modalities) if label in modalities else 0.15 / others for label in task.labels}


def write(path: Path, task: Task, rows: Iterable[Example]) -> None:
    """Write rows in the form that Bedrock trains on."""
    text = "".join(json.dumps(row(task, example.query, example.weights)) + "\n" for example in rows)
    path.write_text(text, encoding="utf-8")
