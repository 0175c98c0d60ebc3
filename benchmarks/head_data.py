"""Queries and labels for the benchmark of the classification head."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import stacks  # noqa: F401  # puts lambda/ on the import path
from benchmarks.similarity import typo
from distilled_router.data.conversation import Example, examples
from distilled_router.data.similarity import families
from distilled_router.head.training import Labelled
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task

PROJECT = Path(__file__).resolve().parents[1]
REAL = PROJECT.parent / "shared" / "data"
SEED = 17


def sample(name: str, task: Task) -> list[Example]:
    """Return the rows of a file of the sample data."""
    with (PROJECT / "data" / f"{name}.jsonl").open(encoding="utf-8") as file:
        return list(examples(file, task))


def real(name: str) -> list[dict[str, object]]:
    """Return the rows of a file of real data; none if it is absent."""
    path = REAL / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def teacher_labels() -> list[Example]:
    """Return the queries that a large teacher labelled."""
    found = []
    for row in real("teacher_labels"):
        weights = row["weights"]
        assert isinstance(weights, dict)
        found.append(Example(str(row["query"]), weights))
    return found


def out_of_domain() -> list[str]:
    """Return real requests that are no video search."""
    return [str(row["query"]) for row in real("out_of_domain")]


def labelled(rows: Sequence[Example]) -> list[Labelled]:
    return [Labelled(row.query, (row.weights,)) for row in rows]


def folds(rows: Sequence[Example], count: int, seed: int) -> Iterator[tuple[list[Example], list[Example]]]:
    """Yield training and held-out rows, by folds of families."""
    numbers = families([row.query for row in rows])
    order = sorted(set(numbers))
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    fold = {number: place % count for place, number in enumerate(order)}
    for held_out in range(count):
        yield (
            [row for row, number in zip(rows, numbers, strict=True) if fold[number] != held_out],
            [row for row, number in zip(rows, numbers, strict=True) if fold[number] == held_out],
        )


def typos(rows: Sequence[Example]) -> list[Example]:
    """Return the rows with one typo each."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    return [Example(typo(row.query, chance), row.weights) for row in rows]


def injections(rows: Sequence[Example], robustness: Robustness) -> list[Example]:
    """Return each row with each text that tries to change its answer."""
    forms = [form.split("{query}") for form in robustness.injections]
    return [Example(row.query.join(form), row.weights) for row in rows for form in forms]


def very_long(rows: Sequence[Example], robustness: Robustness, most: int) -> list[str]:
    """Return the rows' queries, made as long as the task allows by a sentence without meaning."""
    return [f"{row.query}. {f'{robustness.filler} ' * most}"[:most] for row in rows]


def hard_texts(count: int) -> dict[str, str]:
    """Return texts of `count` characters that are hard in different ways."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    letters = string.ascii_lowercase
    return {
        "random letters": "".join(chance.choices(letters, k=count)),
        "words of one letter": "".join(chance.choice(letters) + " " for _ in range(count))[:count],
        "words of two letters": "".join("".join(chance.choices(letters, k=2)) + " " for _ in range(count))[
            :count
        ],
        "Chinese": "".join(chr(0x4E00 + chance.randrange(20_000)) for _ in range(count)),
        "emoji": "".join(chr(0x1F600 + chance.randrange(80)) for _ in range(count)),
        "emoji in words": "".join(chr(0x10400 + chance.randrange(80)) for _ in range(count)),
        "combining marks": "a" + "".join(chance.choices("\u0327\u0301\u0316\u0345", k=count - 1)),
        "long normal form": "\ufdfa" * count,
        "half surrogates": "\ud800" * count,
        "digits": "".join(chance.choices("0123456789", k=count)),
    }


def many(count: int, task: Task, vectors: int) -> list[Example]:
    """Return so many different queries of the sample data's words, with so many different labels."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    known = [row.query.split() for row in sample("training", task)]
    words = [word for query in known for word in query]
    labels = [_vector(chance, task) for _ in range(vectors)]
    return [
        Example(" ".join(chance.choices(words, k=len(chance.choice(known)) + 1)), chance.choice(labels))
        for _ in range(count)
    ]


def _vector(chance: random.Random, task: Task) -> dict[str, float]:
    cuts = sorted(chance.choices(range(101), k=len(task.labels) - 1))
    parts = [(high - low) / 100 for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    return dict(zip(task.labels, parts, strict=True))


def jittered(rows: Sequence[Example], task: Task) -> list[Example]:
    """Return the rows with a random part of each label, up to 0.04, given to another one."""
    chance, found = random.Random(SEED), []  # noqa: S311 - no secret
    for row in rows:
        weights = dict(row.weights)
        for _ in range(2):
            one, other = chance.sample(task.labels, 2)
            moved = min(weights[one], chance.randrange(5) / 100)
            weights[one] -= moved
            weights[other] += moved
        found.append(Example(row.query, {label: round(value, 4) for label, value in weights.items()}))
    return found
