"""The questions of an evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from distilled_router.data.conversation import Example
from distilled_router.task.parsing import weights_problem
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task, TaskError
from evaluation.metrics import Question
from evaluation.questions import SHARD_QUESTIONS, questions, shards, spread

TASK = Task.load()
WEIGHTS = dict.fromkeys(TASK.labels, 0.25)
HOLDOUT = [Example(f"red kite number {number} over the harbour", WEIGHTS) for number in range(30)]


def test_sample_task_has_every_slice_and_its_weights_are_weights() -> None:
    found = Robustness.load(TASK)
    assert all(weights_problem(one.weights, TASK.labels) is None for one in found.other_languages)
    asked = list(questions(HOLDOUT, TASK, found, 10))
    assert Counter(question.slice for question in asked) == {
        "holdout": 30,
        **dict.fromkeys(("typos", "upper_case", "paraphrases", "injections", "very_long"), 10),
        "out_of_domain": len(found.out_of_domain),
        "other_languages": len(found.other_languages),
    }
    assert len({question.id for question in asked}) == len(asked)
    by_id = {question.id: question for question in asked}
    for question in asked:
        assert len(question.query) <= TASK.max_query_characters
        if question.variant_of:
            original = by_id[question.variant_of]
            assert question.query != original.query
            assert question.reference == original.reference
    very_long = next(question for question in asked if question.slice == "very_long")
    assert len(very_long.query) > 0.8 * TASK.max_query_characters


def test_queries_like_trained_ones_are_a_slice_of_their_own() -> None:
    traffic = [Example("a red kite over the other harbour", WEIGHTS)]
    found = [one for one in questions(HOLDOUT, TASK, Robustness(), 5, traffic) if one.slice == "traffic"]
    assert [(one.id, one.query, one.reference) for one in found] == [
        ("traffic-000000", traffic[0].query, WEIGHTS)
    ]
    assert all(one.slice == "holdout" for one in questions(HOLDOUT, TASK, Robustness(), 0, traffic))


def test_questions_are_the_same_every_time() -> None:
    assert list(questions(HOLDOUT, TASK, Robustness.load(TASK), 10)) == list(
        questions(HOLDOUT, TASK, Robustness.load(TASK), 10)
    )


def test_question_has_the_traffic_of_its_query() -> None:
    asked = list(questions([Example("red kite", WEIGHTS, 12)], TASK, Robustness.load(TASK), 1))
    assert {question.count for question in asked if question.slice == "holdout"} == {12}
    ((_, rows),) = shards(asked[:1])
    assert Question(**rows[0]) == asked[0]


def test_no_slices_where_none_are_wanted() -> None:
    asked = list(questions(HOLDOUT, TASK, Robustness.load(TASK), 0))
    assert {question.slice for question in asked} == {"holdout"}


def test_task_without_a_file_still_has_typos_and_capitals(tmp_path: Path) -> None:
    asked = list(questions(HOLDOUT, TASK, Robustness.load(TASK, tmp_path), 5))
    assert {question.slice for question in asked} == {"holdout", "typos", "upper_case"}


def test_typos_swap_two_letters_of_some_words() -> None:
    (changed,) = (q.query for q in questions(HOLDOUT[:1], TASK, Robustness(), 1) if q.slice == "typos")
    original = HOLDOUT[0].query
    assert sorted(changed) == sorted(original)
    assert sum(a != b for a, b in zip(changed, original, strict=True)) in (2, 4)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('paraphrases = ["show me"]', "must hold {query} once"),
        ('injections = ["{query} {query}"]', "must hold {query} once"),
        ('slang = ["yo"]', "unknown: slang; known are filler, injections"),
        ('paraphrases = "show me {query}"', "paraphrases must be a list of texts"),
        ("out_of_domain = [1]", "out_of_domain must be a list of texts"),
        ("filler = 7", "filler must be a text"),
        ("paraphrases = [", "robustness.toml"),
        ('[[other_languages]]\nquery = "rot"', "entry 1 must have a text query and weights"),
        ('[[other_languages]]\nquery = "rot"\nweights = { visual = "1" }', "entry 1 must give every label"),
        (
            '[[other_languages]]\nquery = "rot"\nweights = { visual = 1 }',
            "entry 1: weights for visual,",
        ),
    ],
)
def test_file_that_can_not_be_used_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "robustness.toml").write_text(text)
    with pytest.raises(TaskError, match=problem):
        Robustness.load(TASK, tmp_path)


def test_large_hold_out_is_asked_in_part_spread_evenly() -> None:
    holdout = list(range(20_000))
    asked = spread(holdout, 2_000)
    assert (asked[:3], len(asked), asked[-1]) == ([0, 10, 20], 2_000, 19_990)
    assert spread(holdout[:2_000], 2_000) == holdout[:2_000]
    assert len(set(spread(holdout[:2_999], 2_000))) == 2_000


def test_shards_hold_all_questions_in_order() -> None:
    asked = list(questions(HOLDOUT * 40, TASK, Robustness(), 0))
    parts = list(shards(asked))
    assert [len(rows) for _, rows in parts] == [SHARD_QUESTIONS, SHARD_QUESTIONS, 200]
    assert [name for name, _ in parts] == ["00000", "00001", "00002"]
    assert [row["id"] for _, rows in parts for row in rows] == [question.id for question in asked]
