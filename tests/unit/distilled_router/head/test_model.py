from __future__ import annotations

import math

import pytest

from distilled_router.head.model import Head
from distilled_router.task.task import Task


@pytest.fixture(scope="module")
def head(content: bytes, task: Task) -> Head:
    return Head.read(content, task.labels)


def test_answers_new_queries_like_the_trained_ones(head: Head, task: Task) -> None:
    assert task.dominant(head.answer("a red car in a storm").weights) == "visual"
    assert task.dominant(head.answer("sound of a dog barking in a village").weights) == "audio"


def test_text_that_is_no_search_has_a_higher_risk(head: Head) -> None:
    assert head.answer("set an alarm for seven").risk > 5 * head.answer("a red car in a storm").risk


def test_query_that_is_much_longer_than_the_trained_ones_has_an_infinite_risk(head: Head) -> None:
    longest = head.trained.longest
    accepted, refused = (
        ("a red car " * 100)[: int(1.5 * longest)],
        ("a red car " * 100)[: int(1.5 * longest) + 1],
    )

    assert not head.is_too_long(accepted)
    assert head.is_too_long(refused)
    assert head.answer(refused).risk == math.inf
    assert not head.accepts(head.answer(refused))
    assert max(head.answer(refused).weights.values()) == 0.9
