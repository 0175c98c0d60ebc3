"""Read a task's `robustness.toml`: variants of queries that a release is evaluated on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from distilled_router.data.conversation import Example
from distilled_router.links import inside
from distilled_router.task.parsing import weights_problem
from distilled_router.task.task import ROBUSTNESS_FILE, Task, TaskError, default_folder

_QUERY = "{query}"
_TEXTS = ("paraphrases", "injections", "out_of_domain")

TRAFFIC = "traffic"
SLICES = ("typos", "upper_case", "paraphrases", "injections", "very_long", "other_languages", TRAFFIC)
"""The slices whose right weights are known. `traffic` are raw queries like trained ones."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Variants of queries for a robustness evaluation. Each field may be empty.

    Attributes:
        paraphrases: texts around `{query}` that don't change the weights.
        injections: texts around `{query}` that try to change the weights, and must not.
        filler: a sentence without meaning for the router, to make a query very long.
        out_of_domain: queries that no label fits; any valid weights are right.
        other_languages: queries and their weights.
    """

    paraphrases: tuple[str, ...] = ()
    injections: tuple[str, ...] = ()
    filler: str = ""
    out_of_domain: tuple[str, ...] = ()
    other_languages: tuple[Example, ...] = ()

    @property
    def slices(self) -> tuple[str, ...]:
        """Return the slices with known weights that these variants give, without `traffic`."""
        given = {
            "paraphrases": self.paraphrases,
            "injections": self.injections,
            "very_long": self.filler,
            "other_languages": self.other_languages,
        }
        return tuple(name for name in SLICES if name != TRAFFIC and given.get(name, True))

    @classmethod
    def load(cls, task: Task, folder: Path | None = None) -> Self:
        """Read a task's `robustness.toml`; without the file, all fields are empty.

        Raises:
            TaskError: The file is invalid. The message names every problem.
        """
        folder = folder or default_folder()
        path = folder / ROBUSTNESS_FILE
        if not path.exists():
            return cls()
        try:
            values: dict[str, Any] = tomllib.loads(
                inside(folder, ROBUSTNESS_FILE).read_text(encoding="utf-8")
            )
        except PermissionError as error:
            raise TaskError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise TaskError(f"{path}: {error}") from error
        if problems := list(_problems(values, task)):
            raise TaskError(f"{path}: {'; '.join(problems)}")
        examples = (Example(one["query"], one["weights"]) for one in values.get("other_languages", ()))
        return cls(
            filler=values.get("filler", ""),
            other_languages=tuple(examples),
            **{name: tuple(values.get(name, ())) for name in _TEXTS},
        )


def _problems(values: Mapping[str, Any], task: Task) -> Iterator[str]:
    """Yield each problem of the file."""
    known = {*_TEXTS, "filler", "other_languages"}
    if unknown := sorted(values.keys() - known):
        yield f"unknown: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
    if not isinstance(values.get("filler", ""), str):
        yield "filler must be a text"
    for name in _TEXTS:
        texts = values.get(name, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            yield f"{name} must be a list of texts"
        elif name != "out_of_domain":
            yield from (f"{name}: {t!r} must hold {_QUERY} once" for t in texts if t.count(_QUERY) != 1)
    examples = values.get("other_languages", [])
    for number, one in enumerate(examples if isinstance(examples, list) else [examples], start=1):
        if (
            not isinstance(one, dict)
            or one.keys() != {"query", "weights"}
            or not isinstance(one["query"], str)
        ):
            yield f"other_languages: entry {number} must have a text query and weights"
        elif not isinstance(one["weights"], dict) or not all(
            type(value) in (int, float) for value in one["weights"].values()
        ):
            yield f"other_languages: entry {number} must give every label a number"
        elif problem := weights_problem(one["weights"], task.labels):
            yield f"other_languages: entry {number}: {problem}"
