from __future__ import annotations

import math
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilled_router.head.artifact import MIDDLE, Trained
from distilled_router.head.features import BUCKETS, MOST_CHARACTERS, features
from distilled_router.head.model import Head, HeadAnswer
from distilled_router.task.task import Task
from tests.unit.distilled_router.head.scenes import rows, weights

# It has more features than are added at once.
LONG = "".join(random.Random(1).choices("abcdefghijklmnopq ", k=MOST_CHARACTERS))
LAMBDA = Path(__file__).resolve().parents[4] / "lambda"


@pytest.fixture(scope="module")
def head(content: bytes, task: Task) -> Head:
    return Head.read(content, task.labels)


def test_answers_new_queries_like_the_trained_ones(head: Head, task: Task) -> None:
    assert head.answer("a red car in a storm").weights == weights(task, 0.9, 0.0, 0.0, 0.1)
    assert head.answer("sound of a dog barking in a village").weights == weights(task, 0.2, 0.75, 0.0, 0.05)


def test_text_that_is_no_search_has_a_higher_risk(head: Head) -> None:
    assert head.answer("set an alarm for seven").risk > 5 * head.answer("a red car in a storm").risk


def test_query_that_is_much_longer_than_the_trained_ones_is_never_accepted(head: Head) -> None:
    longest = head.trained.longest
    text = "a red car " * 100
    accepted, refused = text[: int(1.5 * longest)], text[: int(1.5 * longest) + 1]

    assert not head.is_too_long(accepted)
    assert head.answer(accepted).risk < math.inf
    assert head.is_too_long(refused)
    assert head.answer(refused).risk == math.inf
    assert not head.accepts(head.answer(refused))
    assert max(head.answer(refused).weights.values()) == 0.9


def test_head_never_accepts_what_it_does_not_read_whole(small: Trained) -> None:
    head = Head(replace(small, longest=5_000), 0.05)

    assert not head.is_too_long("a" * MOST_CHARACTERS)
    assert head.answer("a red car " * 26).risk == math.inf


def test_threshold_decides_what_is_accepted(small: Trained, head: Head) -> None:
    def answer(risk: float) -> HeadAnswer:
        return HeadAnswer({}, risk, 0)

    assert head.accepts(answer(0.03))
    assert not head.accepts(answer(0.0301))
    assert not Head(small, None).accepts(answer(0.0))


@pytest.mark.parametrize("categories", [1, 2, 4, 27, 62, 63])
@pytest.mark.parametrize("text", ["a red car", "x", "", LONG])
def test_probabilities_are_those_of_the_summed_rows(categories: int, text: str) -> None:
    columns, chance = categories + 1, random.Random(categories)
    table = chance.randbytes(BUCKETS * columns)
    head = Head(
        Trained(
            labels=("one", "two"),
            categories=tuple((number / 100, 1 - number / 100) for number in range(categories)),
            rows=table,
            scale=0.01,
            longest=100,
            about={},
        ),
        None,
    )
    sums = [sum(table[feature * columns + c] - MIDDLE for feature in features(text)) for c in range(columns)]
    powers = [math.exp((each - max(sums)) * 0.01 / math.sqrt(len(features(text)))) for each in sums]
    expected = [power / sum(powers) for power in powers]

    assert head.probabilities(text) == pytest.approx(expected, abs=1e-12)


@given(st.text(st.characters(exclude_categories=()), max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_gets_valid_weights(head: Head, query: str) -> None:
    answer = head.answer(query)

    assert math.fsum(answer.weights.values()) == pytest.approx(1)
    assert answer.risk >= 0


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "\x00",
        "\ud83d",
        "\U0001f600" * 300,
        "\u202e\u05e9\u05dc\u05d5\u05dd",
        "a" * 10_000,
        "\ufdfa" * 10_000,
    ],
)
def test_strange_texts_get_an_answer(head: Head, query: str) -> None:
    assert head.answer(query).weights


def test_answers_can_be_changed_without_changing_later_ones(head: Head) -> None:
    head.answer("a red car").weights["visual"] = 0.0

    assert head.answer("a red car").weights["visual"] == 0.9


def test_threads_share_a_head(head: Head, task: Task) -> None:
    queries = [row.query for row in rows(task)] * 5
    alone = list(map(head.answer, queries))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(head.answer, queries)) == alone


def test_router_loads_a_head_without_further_packages() -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(LAMBDA)!r}]; before = set(sys.modules); "
        "import distilled_router.head.model; print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, check=True, text=True
    ).stdout

    own = [name for name in found.split() if name.startswith("distilled_router")]
    assert own == [
        "distilled_router",
        "distilled_router.head",
        *(f"distilled_router.head.{name}" for name in ("artifact", "categories", "features", "model")),
    ]
    assert not {"numpy", "boto3", "random", "statistics", "asyncio", "typing_extensions"} & set(found.split())
