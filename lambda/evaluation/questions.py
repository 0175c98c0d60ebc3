"""Questions of an evaluation: the hold-out set, and variants of a part of it that test robustness.

The variants are deterministic, so that all releases with one hold-out set get the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from distilled_router.data.conversation import Example
from distilled_router.data.limits import HOLDOUT_ROWS
from distilled_router.data.similarity import families
from distilled_router.task.robustness import TRAFFIC, Robustness
from distilled_router.task.task import Task
from evaluation.metrics import Question

HOLDOUT = "holdout"
# Of more hold-out questions an evenly spread sample is asked, to limit the evaluation's time.
MOST_QUESTIONS = HOLDOUT_ROWS[1]
# Questions of one shard, which one invocation asks within minutes at a second each.
SHARD_QUESTIONS = 500
_QUERY = "{query}"


def questions(
    holdout: Sequence[Example],
    task: Task,
    robustness: Robustness,
    slice_queries: int,
    traffic: Sequence[Example] = (),
) -> Iterator[Question]:
    """Yield all questions, the hold-out set first. None is longer than the router's limit.

    `slice_queries` is the number of hold-out queries with a variant in each slice; 0 means no slices. Queries
    of `traffic` are like trained ones, and a slice of their own.
    """
    asked = list(_in_families(HOLDOUT, holdout))
    yield from asked
    if not slice_queries:
        return
    yield from _in_families(TRAFFIC, traffic)
    part = spread(asked, slice_queries)
    for name, change in _changes(task, robustness).items():
        for number, question in enumerate(part):
            query = change(question.query, number)
            if query != question.query and len(query) <= task.max_query_characters:
                yield replace(
                    question, id=f"{name}-{number:06d}", slice=name, query=query, variant_of=question.id
                )
    for number, query in enumerate(robustness.out_of_domain):
        yield Question(f"out_of_domain-{number:06d}", "out_of_domain", query, None)
    for number, example in enumerate(robustness.other_languages):
        yield Question(f"other_languages-{number:06d}", "other_languages", example.query, example.weights)


def _in_families(name: str, examples: Sequence[Example]) -> Iterator[Question]:
    """Yield the questions of a slice, each with the number of its family."""
    chosen = spread(examples, MOST_QUESTIONS)
    alike = families([example.query for example in chosen])
    for number, (example, family) in enumerate(zip(chosen, alike, strict=True)):
        yield Question(
            f"{name}-{number:06d}",
            name,
            example.query,
            example.weights,
            family=family,
            count=example.count,
        )


def spread[Item](items: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` items, spread evenly; equal inputs give equal results."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def shards(asked: Sequence[Question]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield name and rows of each shard."""
    for number, start in enumerate(range(0, len(asked), SHARD_QUESTIONS)):
        yield f"{number:05d}", [asdict(question) for question in asked[start : start + SHARD_QUESTIONS]]


def _changes(task: Task, robustness: Robustness) -> Mapping[str, Callable[[str, int], str]]:
    """Return the changes that keep a query's weights, by the name of their slice."""
    changes: dict[str, Callable[[str, int], str]] = {
        "typos": lambda query, _: _with_typos(query),
        "upper_case": lambda query, _: query.upper(),
    }
    for name, texts in (("paraphrases", robustness.paraphrases), ("injections", robustness.injections)):
        if texts:
            changes[name] = _around(texts)
    if filler := robustness.filler:
        changes["very_long"] = lambda query, _: _lengthened(query, filler, task.max_query_characters)
    return changes


def _around(texts: Sequence[str]) -> Callable[[str, int], str]:
    """Return a change that puts one of the texts around a query, by turns."""
    return lambda query, number: texts[number % len(texts)].replace(_QUERY, query)


def _with_typos(query: str) -> str:
    """Swap two neighbouring letters in every third word of four letters or more."""
    chance = random.Random(query)  # noqa: S311  # the same every time
    words = query.split(" ")
    long = [place for place, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    for place in long[::3] if long else ():
        word, letter = words[place], chance.randrange(1, len(words[place]) - 2)
        words[place] = word[:letter] + word[letter + 1] + word[letter] + word[letter + 2 :]
    return " ".join(words)


def _lengthened(query: str, filler: str, most: int) -> str:
    """Return the query with as much filler before it as the router's limit allows."""
    times = (most - len(query)) // (len(filler) + 1)
    return f"{' '.join([filler] * times)} {query}" if times > 0 else query
