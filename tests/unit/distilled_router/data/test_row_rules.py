"""What makes one row unusable, and how it is said."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilled_router.data.conversation import row
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.line_rules import MAX_LINE_BYTES
from distilled_router.task.task import RESERVED_WORDS
from tests.unit.distilled_router.data.row_scenes import (
    ASSISTANT,
    HOLDOUT,
    LABEL,
    TASK,
    TURNS,
    USER,
    WEIGHTS,
    changed,
    check,
    checked_line,
    encoded,
    good,
)


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        (b"\n", "blank-line", "remove it"),
        (b"  \t \n", "blank-line", "remove it"),
        (b"{\n", "json", "expected one JSON object"),
        (b"hello\n", "json", "expected one JSON object"),
        (b"[]\n", "json", "found a list"),
        (b"null\n", "json", "found null"),
        (b"NaN\n", "json", "found a number"),
        (b"[" * 100_000, "json", "RecursionError"),
        (b"9" * 100_000, "json", "ValueError"),
        (b'{"a": "\xff"}\n', "encoding", "byte 0xff at 7"),
        (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}\n', "line-length", str(MAX_LINE_BYTES)),
        (changed(schemaVersion="bedrock-conversion-2024"), "schema-version", "bedrock-conversation-2024"),
        (changed(schemaVersion=2024), "schema-version", "found a number"),
        (changed(id=5), "keys", "a row has 'id'; expected messages, schemaVersion, system only"),
        (encoded({"system": [{"text": TASK.student_prompt}]}), "keys", "a row lacks messages, schemaVersion"),
        (changed(system=[]), "text", "system: found 0 items"),
        (changed(system="be brief"), "text", "system: found a string"),
        (changed(system=[{"text": TASK.student_prompt}] * 2), "text", "system: found 2 items"),
        (changed(system=[{"text": "be brief"}]), "system", "found 'be brief', expected the task's student"),
        (changed(system=[{"text": TASK.student_prompt + " "}]), "system", "character by character"),
        (changed(messages=USER), "messages", "found an object"),
        (changed(messages=[]), "messages", "found 0 items"),
        (changed(messages=[USER, ASSISTANT, USER]), "messages", "found 3 items"),
        (changed(messages=["a tin drum", LABEL]), "messages", "found a string"),
        (changed(messages=[ASSISTANT, ASSISTANT]), "role", "found 'assistant', expected 'user'"),
        (changed(messages=[USER, USER]), "role", "found 'user', expected 'assistant'"),
        (changed(messages=[{**USER, "role": ["user"]}, ASSISTANT]), "role", "found a list"),
        (changed(messages=[{**USER, "name": "x"}, ASSISTANT]), "keys", "a message has 'name'"),
        (changed(messages=[{"role": "user"}, ASSISTANT]), "keys", "a message lacks content"),
        (changed(messages=[{**USER, "content": "x"}, ASSISTANT]), "text", "user content: found a string"),
        (changed(messages=[{**USER, "content": [{"image": {}}]}, ASSISTANT]), "keys", "lacks text and has"),
        (changed(messages=[{**USER, "content": [{"text": 5}]}, ASSISTANT]), "text", "found a number"),
        (changed(messages=[{**USER, "content": [{"text": " "}]}, ASSISTANT]), "text", "empty string"),
        (changed(messages=[USER, {**ASSISTANT, "content": [{"text": ""}]}]), "text", "assistant content"),
        (
            encoded(row(TASK, "x", WEIGHTS)).replace(b'"x"', rb'"\ud83d"'),
            "encoding",
            "half of a surrogate pair",
        ),
        (encoded(row(TASK, "a\x07b", WEIGHTS)), "control-character", "'\\x07'"),
        (encoded(row(TASK, "a\x9bb", WEIGHTS)), "control-character", "remove it"),
        (
            encoded(row(TASK, "a tin drum", WEIGHTS)).replace(b'"role"', b'"role": "system", "role"', 1),
            "keys",
            "a key occurs twice",
        ),
    ],
    ids=lambda value: ascii(value[:30]) if isinstance(value, bytes) else None,
)
def test_malformed_row_is_found_at_its_line(line: bytes, rule: str, message: str) -> None:
    finding = checked_line(line)
    assert (finding.rule, finding.severity) == (rule, "error")
    assert message in finding.message
    assert len(finding.message) < 250


@pytest.mark.parametrize("word", RESERVED_WORDS)
def test_reserved_word_is_found(word: str) -> None:
    finding = checked_line(encoded(row(TASK, f"a man says {word} hello", WEIGHTS)))
    assert finding.rule == "reserved-word"
    assert repr(word) in finding.message


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("mostly visual", "no 4 weights found"),
        ("80 0 5 5", "sum to 90"),
        ("84 0 5 10", "expected exactly '85 0 5 10'"),
        ("85, 0, 5, 10", "expected exactly '85 0 5 10'"),
        ("85 0 5 10\n", "expected exactly '85 0 5 10'"),
        (json.dumps({**WEIGHTS, "reasoning": "it is red"}), "expected exactly '85 0 5 10'"),
        ("85 0 5 10 Assistant: done", "expected exactly '85 0 5 10'"),
        ("NaN 0 5 10", "no 4 weights found"),
        ("1e400 0 5 10", "not a number from 0 to"),
        ('{"visual": NaN, "audio": 0, "transcription": 0.5, "metadata": 0.5}', "no 4 weights found"),
        ('{"visual": 1e400, "audio": 0, "transcription": 0.5, "metadata": 0.5}', "not a number from 0 to"),
        ('{"visual": -1e400, "audio": 0, "transcription": 0.5, "metadata": 0.5}', "not a number from 0 to"),
        ('{"a": ' * 2_000, "brackets"),
    ],
)
def test_label_that_the_student_must_not_learn_is_found(label: str, message: str) -> None:
    answer = {**ASSISTANT, "content": [{"text": label}]}
    finding = checked_line(changed(messages=[USER, answer]))
    assert finding.rule == "label"
    assert message in finding.message


def test_label_is_checked_in_the_tasks_own_format() -> None:
    task = replace(TASK, format="json")
    rows = [encoded(row(task, f"{index}", WEIGHTS)) for index in range(100)]
    holdout = [encoded(row(task, f"{index}!b", WEIGHTS)) for index in range(100)]
    assert check_dataset(rows, holdout, task, "distillation").ok
    assert check_dataset(good(100), holdout, task, "distillation").counts["error", "label"] == 100


def test_prompts_alone_are_for_distillation_only() -> None:
    prompts = [encoded(row(TASK, f"query {index}", None)) for index in range(120)]
    report = check(prompts)
    assert report.ok
    assert report.unlabelled == 120
    assert [finding.rule for finding in report.findings] == ["unlabelled"]
    assert check(prompts, method="fine_tuning").counts["error", "label"] == 120
    assert check(good(100), prompts).counts["error", "label"] == 120


WRITERS: dict[str, Callable[[object], str]] = {
    "compact": lambda value: json.dumps(value, separators=(",", ":")),
    "escaped": json.dumps,
    "sorted": lambda value: json.dumps(value, sort_keys=True, ensure_ascii=False),
    "spaced": lambda value: " " + json.dumps(value, ensure_ascii=False) + " ",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_rows_of_any_writer_are_as_good(writer: str) -> None:
    def written(rows: list[bytes]) -> list[bytes]:
        return [WRITERS[writer](json.loads(line)).encode() + b"\n" for line in rows]

    assert check(written(good(100, 'a "red" kité')), written(HOLDOUT)).findings == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (b"2024", b"2023", "schema-version"),
        (b"Weigh", b"weigh", "system"),
        (b'"user"', b'"usex"', "role"),
        (b'"assistant"', b'"assistent"', "role"),
        (b'"content"', b'"contend"', "keys"),
        (b"}]}]}", b"}]}}}", "json"),
    ],
)
def test_row_that_differs_from_those_before_by_a_letter_is_found(old: bytes, new: bytes, rule: str) -> None:
    line = encoded(row(TASK, "a tin drum", WEIGHTS))
    assert old in line
    assert checked_line(line.replace(old, new)).rule == rule


@pytest.mark.parametrize("query", ["user", "text", "schemaVersion", "85 5 5 5"])
def test_query_like_another_string_of_its_row_teaches_nothing(query: str) -> None:
    first = encoded(row(TASK, query, TURNS[0]))
    second = encoded(row(TASK, "a tin drum", WEIGHTS)).replace(b'"user"', b'"bot"')
    report = check([first, second, *good(98)])
    assert [str(found)[:17] for found in report.findings if found.line] == ["training:2 role: "]


def test_row_that_is_too_long_is_found_however_it_is_read() -> None:
    assert checked_line(encoded(row(TASK, "x" * MAX_LINE_BYTES, WEIGHTS))).rule == "line-length"


tricky = st.text('"\\ab \x00\n\x7f\u2028\ud800é', max_size=8)


# A carriage return within the first line means that the file's line ends are those of an old Macintosh.
without_returns = st.text(st.characters(exclude_characters="\r"), max_size=30)


@settings(max_examples=150)
@given(tricky | without_returns, tricky | st.sampled_from([LABEL, "85 0 5 11", '85 0 5 10"', " "]))
def test_row_like_those_before_is_read_as_if_it_were_the_first(query: str, answer: str) -> None:
    messages = [{**USER, "content": [{"text": query}]}, {**ASSISTANT, "content": [{"text": answer}]}]
    text = json.dumps({**row(TASK, "", WEIGHTS), "messages": messages}, ensure_ascii=False)
    # As it should be written, and raw, as a careless writer would.
    raw = text.replace(json.dumps(query, ensure_ascii=False), f'"{query}"')
    for line in (each.encode(errors="surrogatepass") for each in (text, raw)):
        first = [str(found) for found in check([line]).findings if found.line]
        later = check([*good(1), line])
        assert [str(found).replace(":2 ", ":1 ") for found in later.findings if found.line] == first


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from([*good(3), b"\n", b"{}"])), max_size=8))
def test_arbitrary_bytes_never_raise(content: list[bytes]) -> None:
    report = check(content, HOLDOUT[:1])
    assert not report.ok
    report.summary().encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["user", "assistant", LABEL]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "role", "content", "messages", "system"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(json_values, json_values, json_values)
def test_arbitrary_json_never_raises(version: Any, system: Any, messages: Any) -> None:
    line = json.dumps({"schemaVersion": version, "system": system, "messages": messages}).encode()
    assert not check([line], HOLDOUT[:1]).ok
    assert not check([changed(system=system), changed(messages=messages)], HOLDOUT[:1]).ok


def test_row_is_told_all_its_faults() -> None:
    """Also those of its query, which is known whatever else is wrong."""
    bad = {
        "schemaVersion": "2",
        "system": [{"text": "Be quick."}],
        "messages": [
            {"role": "bot", "content": [{"text": "the sign <video> rings\x07"}]},
            {"role": "assistant", "content": [{"text": "90 20 0 0"}], "more": 1},
        ],
        "note": "",
    }
    report = check([*good(100), encoded(bad)])
    assert [finding.rule for finding in report.findings] == [
        *("keys", "schema-version", "system", "role", "keys", "reserved-word", "control-character", "label")
    ]
    assert {(finding.line, finding.severity) for finding in report.findings} == {(101, "error")}


def test_all_faults_of_a_row_are_told_however_it_is_read() -> None:
    """A row like those before is read without a parser."""
    answer = [USER | {"content": [{"text": "rings\x07 <video>"}]}, ASSISTANT | {"content": [{"text": "9 9"}]}]
    report = check([*good(100), changed(messages=answer)])
    assert {rule for _, rule in report.counts} == {"reserved-word", "control-character", "label"}


def test_broken_row_is_compared_with_the_other_rows_as_well() -> None:
    rows = good(100)
    other = encoded(row(TASK, "a red kite number 1", TURNS[0]))
    broken = [line.replace(b"-2024", b"-2023") for line in (rows[0], other, HOLDOUT[0])]
    assert check([*rows, *broken[:2]]).counts == {
        ("error", "schema-version"): 2,
        ("warning", "duplicate"): 1,
        ("error", "conflict"): 1,
    }
    found = check([*rows, HOLDOUT[0]], [*HOLDOUT[1:], good(101, "a blue boat")[100], broken[2]])
    assert found.counts == {("error", "schema-version"): 1, ("error", "contamination"): 1}


def test_roles_that_are_swapped_are_two_faults() -> None:
    report = check([*good(100), changed(messages=[ASSISTANT, USER])])
    assert report.counts == {("error", "role"): 2}


def test_broken_row_makes_no_other_a_duplicate() -> None:
    rows = good(100)
    report = check([rows[0].replace(b"-2024", b"-2023"), *rows])
    assert report.counts == {("error", "schema-version"): 1}


def test_count_of_a_holdout_row_is_its_traffic() -> None:
    counted = [line.replace(b"}\n", b', "count": 12}\n') for line in HOLDOUT]
    assert check(good(100), counted).findings == []
    assert check([*good(100), *counted]).counts == {("error", "keys"): 100}
    wrong = [
        line.replace(b"}\n", b', "count": %s}\n' % value) for value in (b"0", b'"2"') for line in HOLDOUT
    ]
    assert check(good(100), [*HOLDOUT, *wrong]).counts["error", "count"] == 200
