"""What makes a data set unusable, and how it is said."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from botocore.response import StreamingBody
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.conversation import row
from shared.dataset_rules import MAX_LINE_BYTES, ROWS, Report, check_dataset, lines
from shared.findings import Finding
from shared.task import RESERVED_WORDS, Task

TASK = Task.load()
WEIGHTS = {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.10}
LABEL = "85 0 5 10"


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@cache
def good(count: int, words: str = "a red kite") -> list[bytes]:
    return [encoded(row(TASK, f"{words} number {index}", WEIGHTS)) for index in range(count)]


HOLDOUT = good(100, "a blue boat")


def check(training: list[bytes], holdout: list[bytes] | None = None, method: str = "distillation") -> Report:
    return check_dataset(training, HOLDOUT if holdout is None else holdout, TASK, method)


def checked_line(line: bytes, method: str = "distillation") -> Finding:
    """The only finding of a data set that is good but for its line 51."""
    training = good(150)
    report = check([*training[:50], line, *training[50:]], method=method)
    (finding,) = report.findings
    assert (finding.file, finding.line) == ("training", 51)
    return finding


def changed(**changes: Any) -> bytes:
    return encoded({**row(TASK, "a tin drum", WEIGHTS), **changes})


def test_good_data_set_is_usable() -> None:
    report = check(good(100))
    assert report.ok
    assert report.findings == []
    assert report.summary() == (
        "Data set usable: 0 errors, 0 warnings in 100 training rows, 100 holdout rows."
    )


def test_lines_come_with_or_without_their_ends() -> None:
    bare = [line.rstrip(b"\n") for line in good(100)]
    crlf = [line.replace(b"\n", b"\r\n") for line in HOLDOUT]
    assert check(bare, crlf).ok


def test_lines_of_an_s3_body_are_taken() -> None:
    content = b"".join(good(100))
    body = StreamingBody(io.BytesIO(content), len(content))
    assert check_dataset(body.iter_lines(), HOLDOUT, TASK, "fine_tuning").ok
    body = StreamingBody(io.BytesIO(content), len(content))
    assert check_dataset(lines(body.iter_chunks(1000)), HOLDOUT, TASK, "fine_tuning").ok


USER = {"role": "user", "content": [{"text": "a tin drum"}]}
ASSISTANT = {"role": "assistant", "content": [{"text": LABEL}]}


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        (b"\n", "blank-line", "remove it"),
        (b"  \t \r\n", "blank-line", "remove it"),
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
        (encoded({"system": []}), "keys", "a row lacks messages, schemaVersion"),
        (changed(system=[]), "text", "system: found 0 items"),
        (changed(system="be brief"), "text", "system: found a string"),
        (changed(system=[{"text": TASK.student_prompt}] * 2), "text", "system: found 2 items"),
        (changed(system=[{"text": "be brief"}]), "system", "found 'be brief', expected the task's student"),
        (changed(system=[{"text": TASK.student_prompt + " "}]), "system", "character by character"),
        (changed(messages=USER), "messages", "found an object"),
        (changed(messages=[]), "messages", "found 0 items"),
        (changed(messages=[USER, ASSISTANT, USER]), "messages", "found 3 items"),
        (changed(messages=["a tin drum", LABEL]), "messages", "found a string"),
        (changed(messages=[ASSISTANT, USER]), "role", "found 'assistant', expected 'user'"),
        (changed(messages=[USER, USER]), "role", "found 'user', expected 'assistant'"),
        (changed(messages=[{**USER, "role": ["user"]}, ASSISTANT]), "role", "found a list"),
        (changed(messages=[{**USER, "name": "x"}, ASSISTANT]), "keys", "a message has 'name'"),
        (changed(messages=[{"role": "user"}, ASSISTANT]), "keys", "a message lacks content"),
        (changed(messages=[{**USER, "content": "x"}, ASSISTANT]), "text", "user content: found a string"),
        (changed(messages=[{**USER, "content": [{"image": {}}]}, ASSISTANT]), "keys", "lacks text and has"),
        (changed(messages=[{**USER, "content": [{"text": 5}]}, ASSISTANT]), "text", "found a number"),
        (changed(messages=[{**USER, "content": [{"text": " "}]}, ASSISTANT]), "text", "empty text"),
        (changed(messages=[USER, {**ASSISTANT, "content": [{"text": ""}]}]), "text", "assistant content"),
        (
            encoded(row(TASK, "x", WEIGHTS)).replace(b'"x"', rb'"\ud83d"'),
            "encoding",
            "half of a surrogate pair",
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


def test_duplicate_is_a_warning() -> None:
    finding = checked_line(encoded(row(TASK, "A red  kite, number 7!", WEIGHTS)))
    assert (finding.rule, finding.severity) == ("duplicate", "warning")
    assert "line 8" in finding.message


def test_conflicting_label_is_an_error() -> None:
    finding = checked_line(
        encoded(row(TASK, "A red kite number 7", {**WEIGHTS, "visual": 0.9, "metadata": 0.05}))
    )
    assert (finding.rule, finding.severity) == ("conflict", "error")
    assert "'90 0 5 5'" in finding.message
    assert "'85 0 5 10' in line 8" in finding.message


def test_trained_query_in_the_holdout_is_an_error() -> None:
    report = check(good(100), [*HOLDOUT, encoded(row(TASK, "a RED kite number 42", WEIGHTS))])
    (finding,) = report.findings
    assert (finding.file, finding.line, finding.rule) == ("holdout", 101, "contamination")
    assert "training:43" in finding.message


def test_duplicate_of_a_long_query_is_found() -> None:
    long = [encoded(row(TASK, "kite " * 90, WEIGHTS))] * 2
    report = check(good(100) + long, [*HOLDOUT, long[0]])
    assert [finding.rule for finding in report.findings] == ["duplicate", "contamination"]


def test_query_that_the_router_refuses_is_a_warning() -> None:
    finding = checked_line(encoded(row(TASK, "kite " * 103, WEIGHTS)))
    assert (finding.rule, finding.severity) == ("query-length", "warning")


@pytest.mark.parametrize(
    ("method", "rows", "ok"),
    [
        ("distillation", 99, False),
        ("distillation", 100, True),
        ("distillation", 15_000, True),
        ("distillation", 15_001, False),
        ("fine_tuning", 7, False),
        ("fine_tuning", 8, True),
        ("fine_tuning", 20_001, False),
    ],
)
def test_job_takes_so_many_rows(method: str, rows: int, ok: bool) -> None:
    report = check(good(rows), method=method)
    assert report.ok is ok
    assert report.rows["training"] == rows
    if not ok:
        assert [finding.rule for finding in report.findings] == ["row-count"]
        assert f"found {rows}" in report.findings[0].message


def test_broken_rows_do_not_count() -> None:
    report = check([*good(99), b"{}\n", b"{}\n"])
    assert "found 99 usable rows, at least 100" in report.findings[-1].message


def test_empty_files() -> None:
    report = check([], [])
    assert [str(finding) for finding in report.findings] == [
        "training row-count: found 0 usable rows, at least 100; add more",
        "holdout row-count: found 0 usable rows, at least 1; add more",
    ]


def test_small_holdout_is_a_warning() -> None:
    report = check(good(100), HOLDOUT[:30])
    assert report.ok
    assert [finding.rule for finding in report.findings] == ["few-rows"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xef\xbb\xbf" + b"".join(good(100)), "byte order mark"),
        (b"".join(good(100)).decode().encode("utf-16"), "UTF-16"),
        (b"".join(good(100)).decode().encode("utf-16-le"), "NUL bytes"),
        (b"".join(good(100)).decode().encode("utf-32-be"), "NUL bytes"),
        (b"\x1f\x8b\x08\x00\x00" + b"\n" * 50, "gzip"),
        (b"PK\x03\x04\x14\x00", "zip archive"),
    ],
)
def test_foreign_file_is_one_clear_finding(content: bytes, message: str) -> None:
    report = check(list(io.BytesIO(content)))
    (finding,) = report.findings
    assert (finding.file, finding.line, finding.rule) == ("training", None, "encoding")
    assert message in finding.message


def test_size_must_be_under_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.dataset_rules.MAX_BYTES", sum(map(len, good(100))))
    report = check(good(100), HOLDOUT[:0] or HOLDOUT)
    assert "size" in [finding.rule for finding in report.findings]
    assert check([line.rstrip() for line in good(100)], HOLDOUT).counts["error", "size"] >= 1
    monkeypatch.setattr("shared.dataset_rules.MAX_BYTES", sum(map(len, HOLDOUT)) + 1)
    assert check(good(100)).ok


def test_unknown_method_is_a_finding() -> None:
    assert "expected distillation or fine_tuning" in check(good(100), method="magic").summary()


def test_only_the_first_findings_of_a_rule_are_kept_and_all_are_counted() -> None:
    report = check_dataset([b"\n"] * 50 + [b"{\n"] * 70, HOLDOUT, TASK, "distillation", keep=3)
    assert [finding.rule for finding in report.findings] == ["blank-line"] * 3 + ["json"] * 3 + ["row-count"]
    assert report.counts == {("error", "blank-line"): 50, ("error", "json"): 70, ("error", "row-count"): 1}
    assert (report.errors, report.warnings) == (121, 0)


def test_summary_names_rules_places_and_first_findings_within_its_limit() -> None:
    repeated = [good(1)[0]] * 30
    report = check([*good(100), *repeated, b"\n", b"{\n", changed(id=5), changed(schemaVersion="x" * 500)])
    summary = report.summary()
    assert len(summary) < 700
    assert summary.startswith(
        "Data set refused: 4 errors, 30 warnings in 134 training rows, 100 holdout rows."
    )
    assert "By rule: blank-line 1, json 1, keys 1, schema-version 1, duplicate 30." in summary
    assert "training:131 blank-line: found a blank line" in summary
    assert summary.index("training:134 schema-version") > summary.index("training:133 keys")
    assert len(report.summary(limit=120)) <= 120


def test_lines_are_split_at_chunk_borders_of_any_size() -> None:
    content = b"one\n\nthree\r\nfour"
    for size in range(1, len(content) + 1):
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        assert list(lines(chunks)) == [b"one\n", b"\n", b"three\r\n", b"four"]
    assert list(lines([])) == []


def test_file_without_line_ends_is_never_held_whole() -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 65_536
        yield b"\n"
        yield from good(100)

    tracemalloc.start()
    report = check_dataset(lines(chunks()), HOLDOUT, TASK, "distillation")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [finding.rule for finding in report.findings] == ["line-length"]
    assert peak < 3_000_000


def test_endless_file_stays_in_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "distillation", (100, 2_000))
    rows = good(3_000)
    tracemalloc.start()
    report = check_dataset((rows[index % 3_000] for index in range(60_000)), HOLDOUT, TASK, "distillation")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "found 60000 rows, at most 2000" in report.findings[-1].message
    assert peak < 2_000_000


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
