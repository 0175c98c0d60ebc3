from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.head.features import BUCKETS, MOST_CHARACTERS, features

ANY = st.text(st.characters(exclude_categories=()), max_size=600)


def test_features_of_this_version_are_final() -> None:
    """A trained head means these numbers: change VERSION with them."""
    assert features("Bär 2") == [
        10733,
        4917,
        9383,
        1557,
        6811,
        6076,
        9767,
        4257,
        6786,
        11280,
        2416,
        1268,
        1038,
        3915,
        4725,
        6360,
        4696,
        11602,
    ]


def test_equal_texts_in_other_letters_have_the_same_features() -> None:
    query = "zwei Bären am Fluss"

    assert features(query.upper()) == features(query)
    assert features(unicodedata.normalize("NFD", query)) == features(query)
    assert features("\uff52\uff45\uff44 car") == features("red car")


@given(ANY)
def test_any_text_has_few_different_features_in_range(query: str) -> None:
    found = features(query)

    assert found
    assert len(set(found)) == len(found) <= 5 * MOST_CHARACTERS
    assert all(0 <= feature < BUCKETS for feature in found)


@pytest.mark.parametrize(
    "letter", ["a", "\ufdfa", "\u0e01", "\ud800", "\x00", "\U0001f600", "\u0327\u0301", " a"]
)
def test_only_the_beginning_of_a_long_text_counts(letter: str) -> None:
    whole = letter * 10_000

    assert features(whole) == features(whole[:MOST_CHARACTERS])


def test_words_pairs_and_letters_are_different_features() -> None:
    assert set(features("red car")) - set(features("red")) - set(features("car"))
    assert features("red car") != features("car red")
    assert len(set(features("crimson")) & set(features("crimsons"))) > 5


def test_the_maximum_code_point_is_no_special_case() -> None:
    assert features(chr(sys.maxunicode) + "a")
