"""Which raw queries may be labelled, and what is said about the others."""

import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.data import query_rules
from distilled_router.data.findings import Finding, Report
from distilled_router.data.line_rules import MAX_LINE_BYTES, lines
from distilled_router.data.preflight import Needs
from distilled_router.data.query_forms import SAMPLE
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import RESERVED_WORDS, Task

TASK = Task.load()


def read(content: Iterable[bytes], name: str = "queries.txt") -> tuple[list[str], Report]:
    report = Report()
    return list(QueryCheck(TASK, report).read(name, content)), report


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def row(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def test_queries_of_a_text_file_are_its_lines() -> None:
    found, report = read([b"red car\n", b"  a blue boat \n", "Zug fährt\n".encode(), b"last"])
    assert found == ["red car", "a blue boat", "Zug fährt", "last"]
    assert report.findings == []
    assert report.rows == {"queries.txt": 4}


def test_queries_of_json_lines_are_their_query() -> None:
    rows = [row({"query": "red car", "source": "tvr", "more": [1]}), row({"query": " a blue boat "})]
    found, report = read(rows, "folder/more.jsonl")
    assert found == ["red car", "a blue boat"]
    assert report.findings == []
    assert report.rows == {"folder/more.jsonl": 2}


def test_queries_come_while_the_file_is_read() -> None:
    """The first lines decide the file's form, and no more of it is held in memory."""

    def content() -> Iterable[bytes]:
        yield from (b"%d red cars\n" % number for number in range(SAMPLE))
        raise OSError("the rest is not there yet")

    assert next(iter(QueryCheck(TASK, Report()).read("queries.txt", content()))) == "0 red cars"


def test_blank_line_is_left_out_and_counted() -> None:
    for name in ("queries.txt", "queries.jsonl"):
        found, report = read([b"\n", b" \t\n", b"  "], name)
        assert found == []
        assert report.counts == {("warning", "blank-line"): 3}


def test_duplicate_is_left_out_and_names_the_first_in_any_file() -> None:
    report = Report()
    check = QueryCheck(TASK, report)
    assert list(check.read("one.txt", [b"a dog\n", b"red car at night\n"])) == ["a dog", "red car at night"]
    assert list(check.read("two.jsonl", [row({"query": "Red car - at  night!"})])) == ["Red car - at  night!"]
    assert list(check.read("two.jsonl", [row({"query": "Red car, at  night!"})])) == []
    finding = only(report)
    assert (finding.file, finding.line, finding.rule) == ("two.jsonl", 1, "duplicate")
    assert finding.severity == "warning"
    assert "line 2 of one.txt" in finding.message


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        (b"a \xff b\n", "encoding", "byte 0xff at 2"),
        (b"x" * (MAX_LINE_BYTES + 1), "line-length", str(MAX_LINE_BYTES)),
        (b"x" * (TASK.max_query_characters + 1), "query-length", "the router refuses longer ones"),
        (b"the sign <video> says\n", "reserved-word", "'<video>'"),
        (b"a bell\x07 rings\n", "control-character", "'\\x07'"),
        (b'{"query": "red car"}\n', "file-kind", "name the file .jsonl"),
    ],
    ids=lambda value: ascii(value[:20]) if isinstance(value, bytes) else None,
)
def test_unusable_line_of_a_text_file_is_found(line: bytes, rule: str, message: str) -> None:
    found, report = read([b"red car\n", line, b"blue boat\n"])
    assert found == ["red car", "blue boat"]
    finding = only(report)
    assert (finding.file, finding.line, finding.rule) == ("queries.txt", 2, rule)
    assert finding.severity == "error"
    assert message in finding.message
    assert len(finding.message) < 250


@pytest.mark.parametrize(
    ("line", "rule", "message"),
    [
        (b"red car\n", "json", "expected one JSON object"),
        (b"[" * 100_000, "json", "RecursionError"),
        (b"9" * 100_000, "json", "ValueError"),
        (row(["red car"]), "json", "found a list"),
        (row({"text": "red car"}), "keys", "without 'query'"),
        (row({"messages": []}), "keys", "given labels"),
        (row({"query": 5}), "text", "found a number"),
        (row({"query": "  "}), "text", "an empty query"),
        (row({"query": "half \ud83d"}), "encoding", "half of a surrogate pair"),
        (row({"query": "a bell\x00 rings"}), "control-character", "'\\x00'"),
        (row({"query": "x" * 600}), "query-length", "found 600 characters, at most 512"),
    ],
    ids=lambda value: ascii(value[:20]) if isinstance(value, bytes) else None,
)
def test_unusable_line_of_json_lines_is_found(line: bytes, rule: str, message: str) -> None:
    found, report = read([row({"query": "red car"}), line], "queries.jsonl")
    assert found == ["red car"]
    finding = only(report)
    assert (finding.line, finding.rule, finding.severity) == (2, rule, "error")
    assert message in finding.message


@pytest.mark.parametrize("word", RESERVED_WORDS)
def test_reserved_word_is_found(word: str) -> None:
    assert only(read([row({"query": f"a man says {word} hello"})], "q.jsonl")[1]).rule == "reserved-word"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("red car\n".encode("utf-16"), "UTF-16"),
        ("red car\n".encode("utf-16-le"), "NUL bytes"),
        (b"\x1f\x8b\x08\x00red car\n", "gzip"),
    ],
)
def test_foreign_file_is_one_clear_finding(content: bytes, message: str) -> None:
    for name in ("queries.txt", "queries.jsonl"):
        found, report = read(content.splitlines(keepends=True), name)
        assert found == []
        assert only(report).rule == "encoding"
        assert message in only(report).message


def test_crlf_is_one_warning() -> None:
    finding = only(read([b"red car\r\n", b"blue boat\r\n"])[1])
    assert (finding.rule, finding.line, finding.severity) == ("line-end", 1, "warning")


def test_empty_file_is_found() -> None:
    assert only(read([])[1]).rule == "empty"


@pytest.mark.parametrize("name", ["queries.xlsx", "queries", "queries.txt.gz"])
def test_other_kind_of_file_is_found_by_its_name(name: str) -> None:
    found, report = read([b"red car\n"], name)
    assert found == []
    assert only(report).rule == "file-kind"
    assert "expected a name that ends in .txt, .csv, .tsv or .jsonl" in only(report).message


@pytest.mark.parametrize(
    ("method", "queries", "ok"),
    [
        ("distillation", 99, False),
        ("distillation", 100, True),
        ("fine_tuning", 7, False),
        ("fine_tuning", 8, True),
    ],
)
def test_job_needs_so_many_different_queries(method: str, queries: int, ok: bool) -> None:
    report = Report()
    check = QueryCheck(TASK, report)
    numbered = [f"a dog and {number} cats\n".encode() for number in range(queries)]
    list(check.read("one.txt", numbered[:5]))
    list(check.read("two.txt", [*numbered, b"a bell\x07\n"]))
    check.finish(Needs(method=method))
    assert report.counts["warning", "duplicate"] == 5
    assert (("error", "query-count") in report.counts) is not ok
    if not ok:
        assert f"found {queries} usable, different queries, at least {queries + 1}" in report.summary()


@pytest.mark.parametrize(("holdout", "share", "least"), [(0.1, 0.85, 118), (0.2, 0.7, 143), (0.5, 0.25, 400)])
def test_what_is_held_out_is_needed_on_top(holdout: float, share: float, least: int) -> None:
    def finished(queries: int) -> Report:
        report = Report()
        check = QueryCheck(TASK, report)
        list(check.read("q.txt", (b"%d dogs\n" % number for number in range(queries))))
        check.finish(Needs(method="distillation", holdout_share=holdout), tries_split=False)
        return report

    (finding,) = finished(least - 1).findings
    assert f"found {least - 1} usable, different queries, at least {least}; add more" in finding.message
    assert f"a job trains on 100 rows or more, and {1 - share:.0%} are held out" in finding.message
    assert finished(least).ok


def test_more_characters_than_curation_can_compare_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_rules, "MOST_CHARACTERS", 3_000)
    report = Report()
    check = QueryCheck(TASK, report)
    lines = (f"a red kite number {number:04d}".encode() for number in range(10_000))
    assert len(list(check.read("queries.txt", lines))) == 3_000 // 22
    check.finish(Needs(method="fine_tuning"))
    (finding,) = report.findings
    assert finding.rule == "query-count"
    assert finding.message == "found more than 3000 characters in all queries; remove some"


def test_so_many_queries_are_taken_and_the_rest_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_rules, "MOST_QUERIES", 200)
    content = (f"a dog and {number} cats\n".encode() for number in range(1_000))
    report = Report()
    check = QueryCheck(TASK, report)
    assert len(list(check.read("queries.txt", content))) == 200
    assert next(content) == b"a dog and 201 cats\n"
    check.finish(Needs(method="distillation"))
    assert [finding.rule for finding in report.findings] == ["query-count"]
    assert "found more than 200 different queries; remove some" in report.findings[0].message


def test_as_many_queries_as_allowed_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_rules, "MOST_QUERIES", 200)
    report = Report()
    check = QueryCheck(TASK, report)
    assert len(list(check.read("q.txt", [b"a dog\n", *(b"%d\n" % number for number in range(199))]))) == 200
    check.finish(Needs(method="distillation"))
    assert report.ok


def test_one_line_of_200_megabytes_is_one_finding_in_flat_memory() -> None:
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    _, report = read(lines(chunk for _ in range(200)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.counts == {("error", "line-length"): 1}
    assert peak < 5_000_000


@given(st.lists(st.binary(max_size=60)), st.sampled_from(["q.txt", "q.jsonl", "q"]))
def test_arbitrary_bytes_never_raise(content: list[bytes], name: str) -> None:
    report = Report()
    check = QueryCheck(TASK, report)
    for query in check.read(name, content):
        assert query.encode()
        assert query.strip() == query != ""
    check.finish(Needs(method="distillation"))
    report.summary().encode()
