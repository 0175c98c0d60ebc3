"""Which queries are near duplicates, and which are one family."""

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import similarity as benchmark
from distilled_router.data.conversation import normalised
from distilled_router.data.similarity import Neighbours, families
from distilled_router.data.spelling import is_one_edit
from distilled_router.data.word_sets import WordSets, places_of, share
from tests import real_data
from tests.unit.cpu_time import takes_less

NEAR = [
    ("a red car at night", "Red car, at night!"),
    ("a red car at night", "the night, red cars"),
    ("a dog barks and growls", "dogs bark growl a dog barks and growls"),
    ("camera pans to the right", "the camera pans right"),
    ("a man speaks while a television plays in the background", "man speaks, television plays in background"),
    ("a helicopter engine runs", "a helicopter engine runs continuously"),
    ("夜の赤い車", "夜 の 赤い 車"),
    ("to be", "be to"),
    ("a red car at night", "a red car at nigt"),
    ("a red car at night", "a rde car at night"),
    ("a red car at night", "a red carat night"),
    ("rain on a tin roof", "rain on at in roof"),
    ("rain on a tin roof", "rainxon a tin roof"),
    ("a spider-man costume", "a spider man costume"),
    ("a red car at night", "show me a red car at night"),
    ("birdsong", "could you please find me the part where there is birdsong"),
    ("applause", "I'm looking for applause"),
    ("rain on a tin roof", "rain on a tin roof please"),
    ("please show me applause, thanks", "find applause"),
    ("birds singing in the wetlands at dawn", "material about birds singing in the wetlands at dawn"),
    ("cyclist dismounts", "archive material with cyclist dismounts"),
    ("a clock ticks", "zeig mir a clock ticks"),
    ("rain on a tin roof", "do you have anything with rain on a tin roof"),
    ("a clock ticks", "I need the shot where a clock ticks"),
    ("รถสีแดงในเวลากลางคืน", "แสดงรถสีแดงในเวลากลางคืน"),
    ("晚上的红色汽车", "晚上红色汽车"),
    ("two dogs that don't bark", "show me two dogs that don\u2019t bark"),
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
    ("a man in a blue shirt walks his dog down a street", "a man in a red shirt walks his dog down a street"),
    ("a big dog that can swim in cold water", "a big dog that can't swim in cold water"),
    ("a man who sings in the rain", "a man who never sings in the rain"),
    ("a man is talking", "a man is walking"),
    ("a red car", "a red cat"),
    ("a car in the rain", "a car in the train"),
    ("season 3 of Red Kettle", "season 4 of Red Kettle"),
    ("赤い車と猫", "青い車と猫"),
    ("猫がピアノを弾く", "犬がピアノを弾く"),
    ("一只猫在弹钢琴", "一只狗在弹钢琴"),
    ("有人的街道", "没有人的街道"),
    ("红色汽车在雨中行驶", "蓝色汽车在雨中行驶"),
    ("รถสีแดงในเวลากลางคืน", "รถสีดำในเวลากลางคืน"),
    ("two kids", "two kids play"),
    ("a man speaks", "a dog barks while a man speaks"),
    ("show me a dog", "show me a cat"),
    ("play", "show"),
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
@example([["night", "car", "car", "red"]], ["night", "car", "car"])
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
    found = near.near(" ".join(asked))
    expected = {number: share(query) for number, query in enumerate(added) if share(query) >= 0.75}
    # Equal letters may make them nearer than their words do.
    assert all(found.get(number, 0) >= share for number, share in expected.items())
    for number in found.keys() - expected.keys():
        short, long = sorted(("".join(added[number]), "".join(asked)), key=len)
        assert short in long
        assert len(short) >= 10


@settings(max_examples=200)
@given(st.lists(st.frozensets(st.sampled_from(WORDS)), max_size=25), st.frozensets(st.sampled_from(WORDS)))
def test_words_of_all_sets_are_counted_at_once(sets: list[frozenset[str]], asked: frozenset[str]) -> None:
    index = WordSets(sets)
    shares = {number: share(asked, each) for number, each in enumerate(sets) if share(asked, each) >= 0.75}
    assert {index.order[place] for place in places_of(index.near(asked))} == set(shares)
    place = index.nearest(asked, (1 << len(sets)) - 1)
    nearest = max(shares, key=lambda number: (shares[number], -number), default=None)
    assert (None if place is None else index.order[place]) == nearest


@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_one_edit_is_one_letter_wrong_missing_additional_or_exchanged(one: str, other: str) -> None:
    def edits(word: str) -> set[str]:
        parts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
        changed = {before + after[1:] for before, after in parts if after}
        changed |= {before + after[1::-1] + after[2:] for before, after in parts if len(after) > 1}
        changed |= {before + letter + after for before, after in parts for letter in "abc"}
        return changed | {before + letter + after[1:] for before, after in parts for letter in "abc" if after}

    if one != other:
        assert is_one_edit(one, other) == (other in edits(one))


def test_a_word_that_many_use_is_no_typo_of_another() -> None:
    seen = [f"a {animal} in the garden" for animal in ("llama", "lama")]
    known = [f"{thing} with a {animal}" for animal in ("llama", "lama") for thing in ("house", "boat")]
    assert len(set(families([*seen, *known]))) > 1
    assert families(seen) == [0, 0]
    # Among many, some misspell it alike.
    many = [f"{number} a llama and its {word}" for number, word in enumerate(_different(200))]
    assert families([*seen, "a boat, a lama", *many])[:2] == [0, 0]


def _different(count: int) -> list[str]:
    letters = "bcdfglmnprst"
    return [f"{a}o{b}a{c}ing" for a in letters for b in letters for c in letters][:count]


VARIED = {
    "one typo": benchmark.typo,
    "one typo in a word of 4 letters or more": benchmark.typo_in_long_word,
    "a phrase": benchmark.any_phrase,
    "another phrase": benchmark.other_phrase,
}


@pytest.mark.parametrize("name", ["teacher_labels", *real_data.HINTED])
@pytest.mark.parametrize("variant", VARIED)
def test_real_queries_are_recognised_in_their_variants(name: str, variant: str) -> None:
    queries = list(
        {normalised(str(row["query"])): str(row["query"]) for row in real_data.required(name)}.values()
    )
    assert benchmark.recognised(queries, VARIED[variant], "5") >= 0.95


@pytest.mark.parametrize("name", real_data.HINTED)
def test_unrelated_real_queries_are_apart(name: str) -> None:
    queries = [str(row["query"]) for row in real_data.required(name)]
    others = [str(row["query"]) for row in real_data.required("out_of_domain")]
    near = Neighbours(queries)
    assert not any(near.near(query) for query in others)
    chance = random.Random(6)
    pairs = [(chance.choice(queries), chance.randrange(len(queries))) for _ in range(1_000)]
    assert sum(other in near.near(query) and queries[other] != query for query, other in pairs) <= 2


def test_short_query_in_many_scenes_is_none_of_them() -> None:
    """In few, the words around it are likelier a phrase. A hub would join all scenes to one family."""
    scenes = [f"thunder rumbles {how}" for how in ("loudly", "twice", "outside", "at noon", "in spring")]
    variant = "archive material with thunder rumbles"
    assert Neighbours(["thunder rumbles", *scenes[:3], "rain on a roof"]).near(variant)
    assert not Neighbours(["thunder rumbles", *scenes, "rain on a roof"]).near(variant)
    assert not Neighbours([*scenes, "rain on a roof"]).near("thunder rumbles")
    assert families(["thunder rumbles", *scenes[:3]]) == [0, 0, 0, 0]
    assert len(set(families(["thunder rumbles", *scenes]))) == 6


def test_long_words_take_little_memory() -> None:
    """Each letter of a word is left out in turn to find its typos: a kilobyte, unless the word is a text."""
    letters = random.Random(9)
    queries = ["".join(letters.choices("abcdefghij", k=500)) for _ in range(50)]
    tracemalloc.start()
    families(queries)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_hard_kinds_of_queries_take_little_longer_than_others(kind: str) -> None:
    """The number of pairs that share a word decided before: "nearly equal" took 13 s of 4,000 queries."""
    queries = benchmark.queries_of(kind, 400 if "characters" in kind else 3_000)
    assert takes_less(lambda: families(queries), 4)


def test_families_do_not_depend_on_the_order() -> None:
    queries = [str(row["query"]) for name in real_data.HINTED for row in real_data.required(name)[:400]]
    chance = random.Random(8)
    queries += [vary(query, chance) for query in queries[::4] for vary in VARIED.values()]
    queries = list(dict.fromkeys(queries))
    for_query = dict(zip(queries, families(queries), strict=True))
    chance.shuffle(queries)
    number = dict[int, int]()
    for query, other in zip(queries, families(queries), strict=True):
        assert number.setdefault(other, for_query[query]) == for_query[query]
    assert len(number) == len(set(for_query.values()))


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
