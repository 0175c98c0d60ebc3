"""Which queries are near duplicates, and which are one family."""

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilled_router.data.conversation import normalised
from distilled_router.data.similarity import Neighbours, families
from tests import real_data

NEAR = [
    ("a red car at night", "Red car, at night!"),
    ("a red car at night", "the night, red cars"),
    ("a dog barks and growls", "dogs bark growl a dog barks and growls"),
    ("camera pans to the right", "the camera pans right"),
    ("a man speaks while a television plays in the background", "man speaks, television plays in background"),
    ("a helicopter engine runs", "a helicopter engine runs continuously"),
    ("夜の赤い車", "夜 の 赤い 車"),
    ("to be", "be to"),
]
APART = [
    ("a red car at night", "a blue car at night"),
    ("camera pans up", "camera pans down"),
    ("a song with drums", "a song without drums"),
    ("a train from Paris", "a train to Paris"),
    ("the class", "the clas"),
    ("House is talking to Stacy", "House is talking to Foreman"),
    ("夜の赤い車", "昼の青い空"),
    ("a dog", "a cat"),
    ("", "a dog"),
]


@pytest.mark.parametrize(("one", "other"), NEAR)
def test_rewordings_are_near(one: str, other: str) -> None:
    assert Neighbours([one]).nearest(other) == 0
    assert Neighbours([other]).nearest(one) == 0


@pytest.mark.parametrize(("one", "other"), APART)
def test_other_wishes_are_apart(one: str, other: str) -> None:
    assert Neighbours([one]).nearest(other) is None
    assert Neighbours([other]).nearest(one) is None


def test_nearest_shares_most_and_is_the_first_of_equals() -> None:
    near = Neighbours(["big red car night rain", "big red car night", "big red car night"])
    assert near.nearest("a big red car at night") == 1
    near.add("big red cars, night, rain, music")
    assert near.nearest("night: rain, music, big red car") == 3
    assert near.nearest("something else") is None
    assert Neighbours().nearest("a red car") is None


WORDS = ("red", "car", "night", "rain", "dog", "cats", "bird", "tree", "sea", "of", "the", "a")
words = st.lists(st.sampled_from(WORDS), max_size=9)


@settings(max_examples=200)
@given(st.lists(words, max_size=25), words)
def test_every_near_duplicate_is_found_by_its_definition(added: list[list[str]], asked: list[str]) -> None:
    def meant(query: list[str]) -> set[str]:
        stems = {word.replace("cats", "cat") for word in query}
        return stems - {"of", "the", "a"} or set(query)

    def share(query: list[str]) -> float:
        together = meant(query) | meant(asked)
        return len(meant(query) & meant(asked)) / len(together) if together else 0

    near = Neighbours()
    for number, query in enumerate(added):
        near.add(" ".join(query))
        if number % 3 == 0:
            near.nearest("red car")  # an index that is used between additions is as good
    assert near.near(" ".join(asked)) == {
        number: share(query) for number, query in enumerate(added) if share(query) >= 0.75
    }


def test_large_sets_fit_a_function() -> None:
    source = random.Random(5)
    vocabulary = [f"w{number}" for number in range(5_000)]

    def query() -> str:
        return " ".join(vocabulary[int(5_000 * source.random() ** 3)] for _ in range(source.randint(4, 14)))

    tracemalloc.start()
    near = Neighbours(query() for _ in range(2_000))
    for _ in range(300):
        near.nearest(query())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6_000_000  # of 20,000 queries it would be ten times as much


def test_queries_of_one_template_are_one_family() -> None:
    assert families(
        [
            "films directed by Jonas Novak",
            "season 3 of Red Kettle, episode 4",
            "a dog that sleeps",
            "films directed by Amara Petrov",
            "season 12 of Tiny Kingdoms, episode 1",
            'the part where he says "hello there"',
            'the part where he says "the door was open"',
            "we looked for Jonas and Amara",
            "an interview with Novak and Petrov",
        ]
    ) == [0, 1, 2, 0, 1, 3, 3, 4, 5]


def test_three_words_in_a_row_that_many_share_are_a_template() -> None:
    queries = [f"sound of a {thing}" for thing in ("kettle", "train", "wolf")]
    others = [f"{word} {word}er {word}ing" for word in ("run", "sing", "walk", "play", "read", "dig")]
    assert families(queries + others)[:4] == [0, 0, 0, 1]
    # Two could share them by chance.
    assert families(queries[:2] + others)[:3] == [0, 1, 2]


def test_near_duplicates_are_one_family_whatever_their_templates() -> None:
    queries = [f"sound of a {thing}" for thing in ("kettle", "train", "wolf", "fast red bus")]
    queries += [f"can you find {thing}" for thing in ("lakes", "hills", "woods")]
    near = "can you find the sound of a fast red bus"
    numbers = families([*queries, near, "find a sound of you, fast red bus"])
    assert numbers[3] != numbers[4]
    assert numbers[7] == numbers[8]


def test_what_most_queries_begin_with_is_no_template() -> None:
    queries = [f"please route this {first} {second}" for first in "abcdefgh" for second in "ijklmnop"]
    assert len(set(families(queries))) > 1


def test_template_that_most_share_comes_first_and_others_wait_for_their_turn() -> None:
    heard = [f"can you hear {thing}" for thing in ("snow", "owls", "mice", "rain")]
    heard += [f"can you hear the sound of a {thing}" for thing in ("bell", "saw")]
    by_night = [f"sound of a {thing} late at night" for thing in ("drum", "flute")]
    by_night += ["wolves late at night", "a party late at night"]
    others = [f"{letter}er {letter}ing" for letter in "abcdefghijklmno"]
    # Of five sounds, three are left when those that can be heard are gone: night comes before.
    numbers = families([*heard, *by_night, "sound of a kettle", *others])
    assert numbers[:11] == [0] * 6 + [1] * 4 + [2]


def test_capitals_make_no_names_where_everything_is_written_so() -> None:
    queries = [f"Sound Of A {thing}" for thing in ("Kettle", "Train", "Wolf")]
    assert families([*queries, "Rain On Tin Roofs", "Red Car", "Blue Boat"]) == [0, 0, 0, 1, 2, 3]


@given(st.lists(st.text('ab AB"1_', max_size=12) | words.map(" ".join), max_size=12))
def test_families_are_numbered_as_they_appear_and_hold_the_same_queries(queries: list[str]) -> None:
    numbers = families(queries)
    assert numbers == families(queries)
    assert list(dict.fromkeys(numbers)) == list(range(len(set(numbers))))
    first: dict[str, int] = {}
    for query, number in zip(queries, numbers, strict=True):
        if normalised(query):
            assert first.setdefault(normalised(query), number) == number


def test_no_family_swallows_real_queries() -> None:
    queries = [str(row["query"]) for name in real_data.HINTED for row in real_data.required(name)]
    numbers = families(queries)
    sizes = Counter(numbers).most_common()
    assert sizes[0][1] < 0.05 * len(queries)
    assert len(sizes) > 0.3 * len(queries)
    near = Neighbours(queries)
    for place in range(0, len(queries), 20):
        assert all(numbers[other] == numbers[place] for other in near.near(queries[place]))


def test_families_keep_most_of_a_template_together() -> None:
    path = Path(__file__).parents[4] / "data" / "training.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    queries = [row["messages"][0]["content"][0]["text"] for row in rows]
    numbers = dict(zip(queries, families(queries), strict=True))
    for template in ("sound of ", "films directed by "):
        made = [numbers[query] for query in queries if query.startswith(template)]
        assert len(made) > 5
        assert Counter(made).most_common(1)[0][1] > 0.5 * len(made)
