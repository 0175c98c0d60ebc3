"""Rows in Bedrock's conversation format."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.data.conversation import Example, InvalidRow, examples, normalised, query_key, row
from distilled_router.task.task import Task

TASK = Task.load()
WEIGHTS = {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.10}


def test_row_is_bedrocks_conversation() -> None:
    assert row(TASK, "a red kite", WEIGHTS) == {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": TASK.student_prompt}],
        "messages": [
            {"role": "user", "content": [{"text": "a red kite"}]},
            {"role": "assistant", "content": [{"text": "85 0 5 10"}]},
        ],
    }


def test_row_without_weights_is_a_prompt() -> None:
    assert [message["role"] for message in row(TASK, "a red kite", None)["messages"]] == ["user"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_rows_are_read_back(query: str) -> None:
    lines = [
        json.dumps(row(TASK, query, WEIGHTS), ensure_ascii=False),
        "\n",
        json.dumps(row(TASK, query, None)),
    ]
    assert list(examples(lines, TASK)) == [Example(query, WEIGHTS)]


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[]", "5", "null", '{"messages": []}', '{"messages": {}}', "[" * 100_000),
        '{"messages": [{"content": [{"text": 5}]}]}',
        json.dumps(row(TASK, "q", WEIGHTS)).replace("85 0 5 10", "eighty-five"),
    ],
    ids=lambda line: line[:20],
)
def test_broken_row_is_named_by_its_line(line: str) -> None:
    good = json.dumps(row(TASK, "a red kite", WEIGHTS))
    with pytest.raises(InvalidRow, match="line 2: "):
        list(examples([good, line], TASK))


def test_examples_are_read_one_by_one() -> None:
    found = examples(iter([json.dumps(row(TASK, "a red kite", WEIGHTS)), "{"]), TASK)
    assert next(found).query == "a red kite"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A Red Kite", "a red kite"),
        ("  a   red\tkite. ", "a red kite"),
        (
            'who says "we won"?',
            "Who says \N{LEFT DOUBLE QUOTATION MARK}we won\N{RIGHT DOUBLE QUOTATION MARK}",
        ),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "CAFE\N{COMBINING ACUTE ACCENT}"),
        ("\N{RIGHT-TO-LEFT MARK}\N{HEBREW LETTER ALEF}", "\N{HEBREW LETTER ALEF}\N{LEFT-TO-RIGHT MARK}"),
        ("a\N{ZERO WIDTH SPACE}kite\N{ZERO WIDTH NO-BREAK SPACE}", "a ki\N{SOFT HYPHEN}te"),
        ("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16} songs", "\N{HEAVY BLACK HEART} songs"),
        ("STRASSE", "stra\N{LATIN SMALL LETTER SHARP S}e"),
    ],
)
def test_same_wish_written_differently_is_one_query(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("c++ talk", "c talk"), ("?", "!"), ("5% off", "$5 off")])
def test_what_means_something_else_stays_apart(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


@given(st.text())
def test_normalising_twice_changes_nothing_and_keeps_something(query: str) -> None:
    once = normalised(query)
    assert normalised(once) == once
    assert bool(once) == bool(query.strip())


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_text_is_normalised_like_any_other(query: str) -> None:
    assert normalised(f"{query} x \N{GREEK SMALL LETTER BETA}") == (
        f"{normalised(f'{query} x')} \N{GREEK SMALL LETTER BETA}"
    )


def test_key_of_a_query_is_short_and_the_same_for_the_same_wish() -> None:
    assert query_key("A red kite!") == "a red kite"
    long = "a red kite, " * 1_000
    assert query_key(long) == query_key(long.upper().replace(", ", "  "))
    assert query_key(long) != query_key(f"{long} number 5")
    assert query_key(f"{long} \N{GREEK SMALL LETTER BETA}") == query_key(
        f"{long}\N{GREEK CAPITAL LETTER BETA}!"
    )
    assert len(query_key(long)) == 16
    assert isinstance(query_key("\ud800 " * 900), bytes)
