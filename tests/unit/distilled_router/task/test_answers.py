"""Reading weights out of whatever a model writes, and writing them as the student is to."""

import contextlib
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.task.task import InvalidOutput, Task
from tests.unit.cpu_time import takes_less

TASK = Task.load()
JSON_TASK = replace(TASK, format="json")
WEIGHTS = {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.10}


def shares(least: float = 0.0) -> st.SearchStrategy[dict[str, float]]:
    parts = st.lists(st.floats(least, 1), min_size=4, max_size=4).filter(lambda values: sum(values) > 1e-3)
    return parts.map(
        lambda values: {name: v / math.fsum(values) for name, v in zip(TASK.labels, values, strict=True)}
    )


def assert_valid(weights: dict[str, float]) -> None:
    assert tuple(weights) == TASK.labels
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in weights.values())
    assert math.fsum(weights.values()) == pytest.approx(1, abs=1e-9)


# Reading


@pytest.mark.parametrize(
    "text",
    [
        "85 0 5 10",
        "  85 0 5 10\n",
        "85\n0\n5\n10",
        "85% 0% 5% 10%",
        "85 %, 0 %, 5 %, 10 %",
        "85, 0, 5, 10",
        "85/0/5/10",
        "[85, 0, 5, 10]",
        "(85; 0; 5; 10)",
        "0.85 0 0.05 0.1",
        ".85 0 .05 .1",
        "```\n85 0 5 10\n```",
        "The 4 weights are: 85 0 5 10.",
        "visual, audio, transcription, metadata: 85 0 5 10",
        "visual 85 audio 0 transcription 5 metadata 10",
        "Visual: 85%\nAudio: 0%\nTranscription: 5%\nMetadata: 10%",
        "- **visual**: 0.85\n- **audio**: 0\n- **transcription**: 0.05\n- **metadata**: 0.1",
        "metadata is 10, transcription = 5, audio -> 0, visual => 85",
        '{"visual": 0.85, "audio": 0, "transcription": 0.05, "metadata": 0.1}',
        '{"metadata": 10, "transcription": 5, "audio": 0, "visual": 85}',
        '{"visual": "85%", "audio": "0", "transcription": "5 %", "metadata": "10"}',
        '{"Visual": 0.85, "AUDIO": 0.0, " transcription": 0.05, "metadata": 0.1}',
        '```json\n{"visual": 0.85, "audio": 0, "transcription": 0.05, "metadata": 0.1}\n```',
        'Sure {really}! {"visual":0.85,"audio":0,"transcription":0.05,"metadata":0.1} Anything else?',
        '{"reasoning": "visual: 0.1", "visual":0.85,"audio":0,"transcription":0.05,"metadata":0.1}',
        '{"weights": {"visual":0.85,"audio":0,"transcription":0.05,"metadata":0.1}, "sure": true}',
        "{'visual': .85, 'audio': 0, 'transcription': .05, 'metadata': .1,}",
        '{"visual": 85%, "audio": 0%, "transcription": 5%, "metadata": 10%}',
        "85 0 5 10, that is 85 0 5 10",
    ],
)
def test_reads_what_models_write(text: str) -> None:
    assert TASK.parse(text) == WEIGHTS
    assert JSON_TASK.parse(text) == WEIGHTS


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ('{"visual": 1}', [1, 0, 0, 0]),
        ('{"visual": 0.9, "metadata": 0.1, "reasoning": "what is seen"}', [0.9, 0, 0, 0.1]),
        ('```json\n{"weights": {"audio": "40%", "metadata": "60%"}}\n```', [0, 0.4, 0, 0.6]),
        # A complete answer counts more than a part of one in the prose before it.
        (
            'Not {"visual": 1.0}, rather {"visual": 0.5, "audio": 0.5, "transcription": 0, "metadata": 0}',
            [0.5, 0.5, 0, 0],
        ),
    ],
)
def test_labels_that_json_leaves_out_are_zeros_where_no_share_is_left(
    text: str, weights: list[float]
) -> None:
    assert list(TASK.parse(text).values()) == weights


@pytest.mark.parametrize(
    "text",
    [
        *('{"visual": 0.96}', '{"visual": 0.5, "audio": 0.45}', "{}", '{"other": 1}', '{"visual": 1'),
        *('{"visual": 1} {"audio": 1}', '{"visual": "1%"}', "visual: 1", '{"visual": 0, "audio": 0}'),
    ],
)
def test_labels_are_not_made_up_where_a_share_is_left_or_the_answer_is_cut(text: str) -> None:
    with pytest.raises(InvalidOutput):
        TASK.parse(text)


@pytest.mark.parametrize("text", ["84 0 5 10", "86 1 6 12", "0.33 0.33 0.33 0", "25.5 25.5 25.5 25.5"])
def test_sum_that_is_a_little_off_is_scaled(text: str) -> None:
    assert_valid(TASK.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "hello",
            "85",
            "85 0 5",
            "85 0 5 5 5",
            "100 100 100 100",
            "80 0 5 5",
            "0 0 0 0",
            "2 0 0 0",
        ),
        *("85 -5 10 10", "-85 10 20 30 40", "0x55 0 5 10", "85 0 5 10 0 0 0 0", "nan nan nan nan"),
        *("inf 0 0 0", "1e400 0 0 0", "1% 0% 0% 0%", "85 0 5 10 or 10 85 0 5", "85,0 0,0 5,0 10,0"),
        '{"visual": 0.85, "audio": 0, "transcription": 0.05}',
        '{"visual": NaN, "audio": 0, "transcription": 0, "metadata": 1}',
        '{"visual": Infinity, "audio": 0, "transcription": 0, "metadata": 1}',
        '{"visual": true, "audio": false, "transcription": false, "metadata": false}',
        '{"visual": null, "audio": 0, "transcription": 0, "metadata": 1}',
        '{"visual": [1], "audio": 0, "transcription": 0, "metadata": 0}',
        '{"visual": 0.5, "visual": 1, "audio": 0, "transcription": 0, "metadata": 0}',
        '{"visual": 1, "audio": 0, "transcription": 0, "metadata": 0} '
        '{"visual": 0, "audio": 1, "transcription": 0, "metadata": 0}',
        '{"visual": 1.5, "audio": -0.5, "transcription": 0, "metadata": 0}',
        "visual: 85, audio: 0, visual: 15, transcription: 0, metadata: 0",
        '{"visual": 0.85, "audio": 0, "transc',
    ],
)
def test_refuses_what_is_no_answer(text: str) -> None:
    with pytest.raises(InvalidOutput):
        TASK.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        '{"a":' * 5_000,
        "[" * 16_000,
        '{"visual":' + "9" * 16_000 + "}",
        "9" * 16_000,
        "1 " * 8_000,
        "1," * 8_000,
        "1" + " " * 16_000,
        " " * 16_000 + "{",
        "visual" + "*" * 16_000,
        "visual:" * 2_000,
        "1e" * 8_000,
        "\ud800" * 16_000,
        "x" * 10_000_000,
        "\N{SUPERSCRIPT TWO} \N{ARABIC-INDIC DIGIT THREE} 0 0",
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_hostile_text_is_cheap_and_refused(text: str) -> None:
    def refuse() -> None:
        with pytest.raises(InvalidOutput) as caught:
            TASK.parse(text)
        str(caught.value).encode()  # can be logged

    assert takes_less(refuse, 0.25)


def test_error_carries_at_most_80_characters_of_the_text() -> None:
    for text in ("secret " * 100, "\ud800" * 100, "\N{GRINNING FACE}" * 100, "80 0 5 5 " + "y" * 200):
        with pytest.raises(InvalidOutput) as caught:
            TASK.parse(text)
        assert len(str(caught.value)) <= 60 + 80


def test_text_that_is_no_text_is_refused() -> None:
    for value in (None, 85, b"85 0 5 10", ["85 0 5 10"]):
        with pytest.raises(InvalidOutput, match="expected text"):
            TASK.parse(value)  # type: ignore[arg-type] # what a broken response may hold


@given(st.text())
def test_arbitrary_text_gives_valid_weights_or_invalid_output(text: str) -> None:
    with contextlib.suppress(InvalidOutput):
        assert_valid(TASK.parse(text))


number = st.one_of(
    st.integers(-5, 110).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.floats(0, 1).map("{:.2f}".format),
    st.sampled_from([".5", "5.", "1e-1", "1e999", "50%", "-0", "+5", "true", "null", '"50"']),
)


@given(
    st.lists(
        st.one_of(number, st.sampled_from([*TASK.labels, *'{}[]",:%/; ', "\n", '"visual":', "is", "\ud800"])),
        max_size=30,
    ),
    st.sampled_from(["", " ", ", "]),
)
def test_near_answers_give_valid_weights_or_invalid_output(parts: list[str], separator: str) -> None:
    with contextlib.suppress(InvalidOutput):
        assert_valid(TASK.parse(separator.join(parts)))


@given(st.lists(number, min_size=4, max_size=4))
def test_json_of_any_numbers_gives_valid_weights_or_invalid_output(values: list[str]) -> None:
    pairs = ", ".join(f'"{name}": {value}' for name, value in zip(TASK.labels, values, strict=True))
    with contextlib.suppress(InvalidOutput):
        assert_valid(TASK.parse("{" + pairs + "}"))


def test_compact_answer_is_read_within_ten_microseconds() -> None:
    assert takes_less(lambda: [TASK.parse("85 0 5 10") for _ in range(1_000)], 1_000 * 10e-6)


# Writing


@given(shares())
def test_compact_percents_sum_to_100_and_are_as_near_as_that_allows(weights: dict[str, float]) -> None:
    text = TASK.render(weights)
    assert re.fullmatch(r"\d+ \d+ \d+ \d+", text)
    assert len(text) <= 11
    assert sum(map(int, text.split())) == 100
    read = TASK.parse(text)
    # Four quarters of a percent can't all be rounded to nearest and sum to 100: 3/4 is the best bound.
    assert all(abs(read[name] - weights[name]) <= 0.0075 + 1e-9 for name in TASK.labels)
    assert sum(abs(read[name] - weights[name]) for name in TASK.labels) / 4 <= 0.005 + 1e-9


@given(shares())
def test_json_is_read_back(weights: dict[str, float]) -> None:
    text = JSON_TASK.render(weights)
    assert JSON_TASK.parse(text) == pytest.approx(weights, abs=1e-4)
    assert JSON_TASK.written_as_asked(text)


@given(st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(lambda values: sum(values) <= 100))
def test_whole_percents_are_written_exactly(percents: list[int]) -> None:
    percents.append(100 - sum(percents))
    weights = {name: value / 100 for name, value in zip(TASK.labels, percents, strict=True)}
    assert TASK.render(weights) == " ".join(map(str, percents))
    assert TASK.parse(TASK.render(weights)) == weights


def test_format_may_be_named() -> None:
    assert json.loads(TASK.render(WEIGHTS, "json")) == WEIGHTS
    assert JSON_TASK.render(WEIGHTS, "compact") == "85 0 5 10"
    with pytest.raises(ValueError, match="'xml'"):
        TASK.render(WEIGHTS, "xml")


@pytest.mark.parametrize(
    "weights",
    [
        {"visual": 1.0},
        {**WEIGHTS, "smell": 0.0},
        {**WEIGHTS, "visual": 0.5},
        {**WEIGHTS, "visual": math.nan},
        {**WEIGHTS, "visual": 1.85, "audio": -1.0},
    ],
)
def test_weights_that_are_no_weights_are_not_written(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        TASK.render(weights)


def test_written_as_asked_insists_on_the_form() -> None:
    assert TASK.written_as_asked("85 0 5 10")
    for text in ("85 0 5 10 ", "85, 0, 5, 10", "085 0 5 10", "84 0 5 10", "hello", json.dumps(WEIGHTS)):
        assert not TASK.written_as_asked(text)
    assert JSON_TASK.written_as_asked('{"visual":0.85,"audio":0,"transcription":0.05,"metadata":0.1}')
    twice = '{"visual": 0.1, "visual": 0.85, "audio": 0, "transcription": 0.05, "metadata": 0.1}'
    others = json.dumps({**WEIGHTS, "reasoning": "because"})
    for text in ("85 0 5 10", "[]", "{", "[" * 100_000, '["visual"]', others, twice):
        assert not JSON_TASK.written_as_asked(text)


def test_dominant_is_the_first_of_equals() -> None:
    weights = {"visual": 0.1, "audio": 0.4, "transcription": 0.1, "metadata": 0.1 + 0.2 + 0.1}
    assert TASK.dominant(weights) == "audio"
    assert TASK.dominants(weights) == {"audio", "metadata"}
    assert TASK.dominant(WEIGHTS) == "visual"
