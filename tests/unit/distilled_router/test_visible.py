"""Text that is made safe for a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.visible import visible
from tests.unit.hostile import GOOD, HOSTILE, obeyed


@pytest.mark.parametrize("character", sorted(set(filter(obeyed, HOSTILE))))
def test_a_character_that_a_terminal_obeys_is_shown(character: str) -> None:
    assert visible(f"a{character}b") == f"a\\u{ord(character):04x}b"


@pytest.mark.parametrize("text", GOOD)
def test_letters_of_all_scripts_and_emoji_stay(text: str) -> None:
    assert visible(text) == text


@given(st.text(st.characters()))
def test_what_is_printed_can_be_printed_and_controls_nothing(text: str) -> None:
    shown = visible(text)
    assert not any(map(obeyed, shown))
    assert shown.encode().decode() == shown
    assert visible(shown) == shown


@given(st.text())
def test_json_stays_json(text: str) -> None:
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text
