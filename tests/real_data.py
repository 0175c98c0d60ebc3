"""Real queries and labels, which are not part of this project: they lie beside it, or they are absent.

`teacher_labels.jsonl` holds weights that a large teacher gave. The other files say which channel people found
an answer in, which is a hint and no label: it becomes one here by a fixed rule, to exercise the machinery.
Neither makes a score a claim about routing quality.
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
    """The rows of a file. Skips the test that asks, and says so, where the data is absent."""
    path = FOLDER / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"real data is absent: no {path.name} beside the project")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_present() -> bool:
    """Whether the real data lies beside the project."""
    return (FOLDER / "teacher_labels.jsonl").exists()


def examples(task: Task, *, hinted: int, seed: int = 7) -> list[Example]:
    """All teacher labels and so many hinted queries of each file, shuffled, one of each query."""
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
    """The channels of the hint share 0.85, the others 0.15."""
    assert isinstance(modalities, list)
    others = len(task.labels) - len(modalities)
    return {label: 0.85 / len(modalities) if label in modalities else 0.15 / others for label in task.labels}


def write(path: Path, task: Task, rows: Iterable[Example]) -> None:
    """Write rows in the form that Bedrock trains on."""
    text = "".join(json.dumps(row(task, example.query, example.weights)) + "\n" for example in rows)
    path.write_text(text, encoding="utf-8")
