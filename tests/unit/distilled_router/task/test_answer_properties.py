"""Properties of format and parser that hold for any task, any weights and any text."""

import contextlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distilled_router.task.task import FORMATS, InvalidOutput, Task
from tests.unit.cpu_time import takes_less

# Labels that are also words or numbers of the formats, or that hide each other.
TRICKY = ("is", "nan", "inf", "e", "e5", "true", "null", "a", "a-b", "a_b", "ab", "reasoning")

Found = tuple[Task, dict[str, float]]


def task_of(labels: list[str]) -> Task:
    return Task(
        name="any",
        labels=tuple(labels),
        format="compact",
        max_query_characters=512,
        static_weights=dict.fromkeys(labels, 1 / len(labels)),
        teacher_prompt=", ".join(labels),
        student_prompt=", ".join(labels),
    )


VIDEO = Task.load()
TWENTY = task_of([f"label{number:02}" for number in range(20)])

label = st.sampled_from(TRICKY) | st.text("abyz05_-", max_size=39).map("l".__add__)
tasks = st.lists(label, min_size=2, max_size=20, unique=True).map(task_of)
forms = st.sampled_from(FORMATS)

# What else the machine does must fail no property.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def weighed(draw: st.DrawFn, *, of: st.SearchStrategy[Task] = tasks, percents: bool = False) -> Found:
    """A task, and weights for its labels: any, or whole percents."""
    task = draw(of)
    cut = st.integers(0, 100).map(lambda percent: percent / 100) if percents else st.floats(0, 1)
    inner = draw(st.lists(cut, min_size=len(task.labels) - 1, max_size=len(task.labels) - 1))
    parts = [high - low for low, high in pairwise([0.0, *sorted(inner), 1.0])]
    return task, dict(zip(task.labels, (round(part, 2) if percents else part for part in parts), strict=True))


def assert_valid(task: Task, weights: dict[str, float]) -> None:
    assert tuple(weights) == task.labels
    assert all(type(value) is float and 0 <= value <= 1 for value in weights.values())
    assert math.fsum(weights.values()) == pytest.approx(1, abs=1e-9)


def read_or_refused(task: Task, text: str) -> None:
    """What is read is valid; all else is refused in one way, in words that can be logged."""
    try:
        weights = task.parse(text)
    except InvalidOutput as refusal:
        str(refusal).encode()
    else:
        assert_valid(task, weights)


# Written, then read


@unhurried
@given(weighed(), forms)
def test_what_is_written_is_read_back_within_its_rounding(found: Found, form: str) -> None:
    task, weights = replace(found[0], format=form), found[1]
    text = task.render(weights)
    read = task.parse(text)
    assert_valid(task, read)
    unit = 1 / (100 if form == "compact" else 10_000)
    # No rounding of n parts that keeps their sum does better than (n - 1) / n of a unit.
    worst = unit * (len(weights) - 1) / len(weights)
    assert all(abs(read[name] - weights[name]) <= worst + 1e-9 for name in task.labels)
    assert task.render(read) == text
    assert task.written_as_asked(text)


@unhurried
@given(weighed(), forms)
@example((TWENTY, {name: 0.1 * (name < "label10") for name in TWENTY.labels}), "compact")
@example((VIDEO, {"visual": 0.1234, "audio": 0.2345, "transcription": 0.3456, "metadata": 0.2965}), "json")
def test_no_answer_takes_more_tokens_than_a_model_may_write(found: Found, form: str) -> None:
    """A token is at least one character, and the end of the answer is one more."""
    task, weights = found
    assert len(task.render(weights, form)) + 1 <= task.most_tokens(form)


@unhurried
@given(weighed(of=st.just(VIDEO)))
@example((VIDEO, dict.fromkeys(VIDEO.labels, 0.25)))
def test_compact_answer_of_four_weights_is_at_most_12_tokens(found: Found) -> None:
    """Four percents with a sum of 100 have two digits each, or one has three and the others one: 8 digits at
    most, and 3 spaces. A token is at least one of these characters, and one more ends the answer."""
    text = found[0].render(found[1], "compact")
    assert len(text) + 1 <= 12
    assert text.isascii()


# Written as models write it, then read

PROSE = (
    *("{}", " {}\n", "```\n{}\n```", "```text\n{}\n```", "Here you go: {}", "{}\n\nThat's it!", "**{}**"),
    *("The weights are {}.", "> {}", "<answer>{}</answer>"),
)
SEPARATORS = (" ", ", ", "; ", "/", " | ", "\n", "\t", "  ")
NUMBERS: tuple[Callable[[int], str], ...] = (
    lambda percent: f"{percent}",
    lambda percent: f"{percent}%",
    lambda percent: f"{percent} %",
    lambda percent: f"{percent}.0",
    lambda percent: f"{percent / 100:.2f}",
    lambda percent: f"{percent / 100:g}",
    lambda percent: f"{percent / 100:.2f}".removeprefix("0"),  # .5
)
numbers = st.sampled_from(NUMBERS)
proses = st.sampled_from(PROSE)


def percents_of(weights: dict[str, float]) -> dict[str, int]:
    return {name: round(value * 100) for name, value in weights.items()}


@unhurried
@given(weighed(percents=True), proses, st.sampled_from(SEPARATORS), numbers)
def test_decorated_numbers_are_read(
    found: Found, prose: str, separator: str, number: Callable[[int], str]
) -> None:
    task, weights = found
    text = separator.join(number(percent) for percent in percents_of(weights).values())
    assert task.parse(prose.replace("{}", text)) == pytest.approx(weights, abs=1e-9)


@unhurried
@given(weighed(percents=True), st.randoms(use_true_random=False), proses, st.booleans(), st.booleans())
def test_decorated_json_is_read(
    found: Found, order: random.Random, prose: str, nested: bool, whole: bool
) -> None:
    task, weights = found
    values: list[tuple[str, object]] = [
        (name.upper() if whole else name, f"{percent}%" if whole else percent / 100)
        for name, percent in percents_of(weights).items()
    ]
    if "reasoning" not in task.labels:
        values.append(("reasoning", "It is {mostly} 1 of them: 90, 10."))
    order.shuffle(values)
    answer = json.dumps({"The answer": dict(values), "sure": True} if nested else dict(values), indent=2)
    assert task.parse(prose.replace("{}", answer)) == pytest.approx(weights, abs=1e-9)


@unhurried
@given(weighed(percents=True), st.sampled_from("'\""), numbers, st.sampled_from(["", ","]), proses)
def test_what_is_nearly_json_is_read(
    found: Found, quote: str, number: Callable[[int], str], last: str, prose: str
) -> None:
    task, weights = found
    pairs = ", ".join(f"{quote}{name}{quote}: {number(part)}" for name, part in percents_of(weights).items())
    assert task.parse(prose.replace("{}", "{" + pairs + last + "}")) == pytest.approx(weights, abs=1e-9)


@unhurried
@given(weighed(percents=True), proses)
def test_zeros_that_json_leaves_out_are_read(found: Found, prose: str) -> None:
    task, weights = found
    text = json.dumps({name: value for name, value in weights.items() if value})
    assert task.parse(prose.replace("{}", text)) == pytest.approx(weights, abs=1e-9)


# Any text

anything = st.text(st.characters())  # with lone surrogates
piece = st.one_of(
    st.sampled_from(
        [
            *"{}[]\"',:;/|%-+.=`*\\ \n\t\x00",
            *("->", "is", "null", "true", '"weights": {', "\ud800", "\u0663", "\xb2"),
            *("NaN", "-Infinity", "inf", "1e400", "-1e400", "1e-400", "9" * 400, "0." + "9" * 400),
            *(".5", "5.", "50%"),
        ]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.integers(0, 100).map(str),
)


@st.composite
def near_answers(draw: st.DrawFn) -> tuple[Task, str]:
    task = draw(tasks)
    part = st.sampled_from(task.labels) | st.sampled_from(task.labels).map('"{}": '.format) | piece
    return task, draw(st.sampled_from(["", " ", ", "])).join(draw(st.lists(part, max_size=40)))


@unhurried
@given(tasks, anything)
def test_any_text_is_read_or_refused(task: Task, text: str) -> None:
    read_or_refused(task, text)


@unhurried
@given(near_answers())
def test_any_near_answer_is_read_or_refused(found: tuple[Task, str]) -> None:
    read_or_refused(*found)


@unhurried
@given(weighed(), forms, st.data())
def test_any_damaged_answer_is_read_or_refused(found: Found, form: str, data: st.DataObject) -> None:
    task, weights = found
    text = task.render(weights, form)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    read_or_refused(task, text[:start] + data.draw(anything | piece) + text[end:])


values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | anything | piece,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TRICKY), inner, max_size=4),
    max_leaves=8,
)


@unhurried
@given(tasks, st.data())
def test_any_json_of_the_labels_is_read_or_refused(task: Task, data: st.DataObject) -> None:
    read_or_refused(task, json.dumps(data.draw(st.dictionaries(st.sampled_from(task.labels), values))))


@unhurried
@given(st.lists(piece | st.sampled_from(VIDEO.labels), min_size=1, max_size=4).map("".join), piece, piece)
def test_the_longest_answers_take_linear_time(fragment: str, before: str, after: str) -> None:
    """Quadratic time would be seconds for 16,384 characters."""
    text = (before + fragment * (16_384 // len(fragment)))[: 16_384 - len(after)] + after

    def parse() -> None:
        with contextlib.suppress(InvalidOutput):
            VIDEO.parse(text)

    assert takes_less(parse, 0.25)
