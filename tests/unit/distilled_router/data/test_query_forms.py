"""Exports of logs as raw queries: tables and counts are recognised, and told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.data.findings import Finding, Report
from distilled_router.data.preflight import Needs
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import Task

TASK = Task.load()
WEIGHTS = dict.fromkeys(TASK.labels, 0.25)


def read(
    content: bytes | str | Sequence[object], name: str = "queries.txt"
) -> tuple[dict[str, float], Report]:
    """Return the traffic of each query of a file, and the report. Objects become JSON lines."""
    if not isinstance(content, bytes | str):
        content = "".join(f"{json.dumps(row)}\n" for row in content)
    encoded = content.encode() if isinstance(content, str) else content
    report = Report()
    check = QueryCheck(TASK, report)
    queries = list(check.read(name, encoded.splitlines(keepends=True)))
    return {query: check.traffic(query) for query in queries}, report


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def warned(report: Report) -> str:
    """Return what is told of a file that is taken."""
    finding = only(report)
    assert (finding.severity, finding.rule, finding.line) == ("warning", "columns", None)
    return finding.message


TABLES = {
    "query and count": ("red car\t12\na blue boat\t3\n", "queries.txt"),
    "count and query": ("12\tred car\n3\ta blue boat\n", "queries.tsv"),
    "tab with header": ("query\tcount\nred car\t12\na blue boat\t3\n", "queries.txt"),
    "other names": ("Search term\tSessions\nred car\t12\na blue boat\t3\n", "queries.txt"),
    "comma with header": ("query,count\nred car,12\na blue boat,3\n", "queries.txt"),
    "comma without header": ("red car,12\na blue boat,3\n", "queries.csv"),
    "quoted": ('"Query","Hits"\r\n"red car","12"\r\n"a blue boat","3"\r\n', "queries.csv"),
    "byte order mark": ("\ufeffquery;count\nred car;12\na blue boat;3\n", "queries.csv"),
    "further columns": ("day,query,hits,user\n1,red car,12,7\n1,a blue boat,3,8\n", "queries.txt"),
    "uniq -c": ("     12 red car\n      3 a blue boat\n", "queries.txt"),
    "weight": ([{"query": "red car", "weight": 12}, {"query": "a blue boat", "weight": 3}], "queries.jsonl"),
    "thousands": ('query,count\nred car,"12"\na blue boat,3\na dog,"1,234,567"\n', "queries.csv"),
    "spaces in thousands": ("red car\t12\na blue boat\t3\na dog\t1\u202f234\u202f567\n", "queries.tsv"),
    "points in thousands": ("query;hits\nred car;12\na blue boat;3\na dog;1.234.567\n", "queries.csv"),
    "exponent": ("query,count\nred car,12\na blue boat,3\na dog,1.234567E6\n", "queries.csv"),
    "numbers as text": (
        [{"query": "red car", "hits": "12"}, {"query": "a blue boat", "hits": " 3"}],
        "queries.jsonl",
    ),
    "separator named": ("\ufeffsep=;\r\nQuery;Count\r\nred car;12\r\na blue boat;3\r\n", "queries.csv"),
    "empty cells": ("query,count\nred car,12,,\na blue boat,3,,\n", "queries.csv"),
    "empty columns": ("red car\t12\t\na blue boat\t3\t\n", "queries.txt"),
    "bars": ("query|count\nred car|12\na blue boat|3\n", "queries.txt"),
    "capitals": ("QUERY,COUNT\nred car,12\na blue boat,3\n", "QUERIES.CSV"),
    "index of pandas": (",query,count\n0,red car,12\n1,a blue boat,3\n", "queries.csv"),
    "fractions": ("query,count\nred car,12.0\na blue boat,3\n", "queries.txt"),
}


@pytest.mark.parametrize(("content", "name"), TABLES.values(), ids=TABLES)
def test_count_of_a_log_export_is_traffic_and_no_part_of_the_query(
    content: str | Sequence[object], name: str
) -> None:
    found, report = read(content, name)
    assert found.pop("a dog", 1_234_567) == 1_234_567
    assert found == {"red car": 12, "a blue boat": 3}
    assert report.ok
    assert report.counts["warning", "columns"] == 1


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (TABLES["query and count"][0], "q.txt", "queries from column 1 and their traffic from column 2"),
        (
            TABLES["further columns"][0],
            "q.txt",
            "found a table separated by commas; queries from 'query' and their traffic from 'hits'; left "
            "out: 'day', 'user'",
        ),
        (TABLES["uniq -c"][0], "q.txt", "found counts before the queries, as uniq -c writes them"),
        (TABLES["weight"][0], "q.jsonl", "the queries' traffic is read from weight"),
    ],
)
def test_columns_that_are_read_are_named(content: str | Sequence[object], name: str, message: str) -> None:
    assert message in warned(read(content, name)[1])


def test_table_may_have_no_count() -> None:
    found, report = read('source,query\ntvr,"red car, at night"\ntvr,a blue boat\n')
    assert found == {"red car, at night": 1, "a blue boat": 1}
    assert "queries from 'query'; left out: 'source'" in warned(report)
    assert read("query\nred car\na blue boat\n", "queries.csv")[0] == {"red car": 1, "a blue boat": 1}


def test_query_in_a_table_keeps_its_quotes_and_separators() -> None:
    found, _ = read('"night" trailer\t3\nred car\t2\n"a ""big"" boat"\t1\n')
    assert list(found) == ['"night" trailer', "red car", 'a "big" boat']
    assert list(read('query,count\n"cars, at night",3\nboat,1\n', "q.csv")[0]) == ["cars, at night", "boat"]


NUMBERED = {
    "lines": "".join(
        f"{number}\t{query}\n" for number, query in enumerate(("red car", "a boat", "a dog"), 1)
    ),
    "index of pandas": ",query\n0,red car\n1,a boat\n2,a dog\n",
    "ids": "user_id,query\n77,red car\n12,a boat\n51,a dog\n",
    "years": "query,year\nred car,1999\na boat,2004\na dog,1987\n",
}


@pytest.mark.parametrize("content", NUMBERED.values(), ids=NUMBERED)
def test_numbers_that_count_nothing_are_no_traffic(content: str) -> None:
    assert read(content, "queries.csv" if "," in content else "queries.txt")[0] == {
        "red car": 1,
        "a boat": 1,
        "a dog": 1,
    }


def test_separator_that_may_be_a_point_is_asked_about() -> None:
    """1.234 is a thousand in one country and a fraction in another."""
    found, report = read("query;count\nred car;1.234\na boat;2.5\n", "q.csv")
    assert found == {"a boat": 2.5}
    assert (
        "found '1.234', which may be thousands or a fraction; write 1234 or 1.2340"
        in report.findings[0].message
    )


@pytest.mark.parametrize("number", range(5))
def test_query_over_two_lines_is_told_as_such(number: int) -> None:
    rows = ['"a dog, a cat",3'] * 4
    rows.insert(number, '"a red\ncar",12')
    _, report = read("\n".join(["query,count", *rows]), "q.csv")
    (told,) = (one for one in report.findings if one.severity == "error")
    assert (told.line, told.rule) == (number + 2, "columns")
    assert "found a quote that does not end in its line" in told.message


def test_numbers_before_most_queries_are_told() -> None:
    """The output of `uniq -c` without its padding. The lines may also be of 101 dalmatians."""
    found, report = read("".join(f"{90 - number} red car {number}\n" for number in range(20)))
    assert len(found) == 20
    assert "put a tab after it if it is the query's count" in warned(report)


def test_total_is_told_since_it_would_be_all_the_traffic() -> None:
    rows = [f"car {number}\t{number + 5}" for number in range(30)]
    report = Report()
    check = QueryCheck(TASK, report)
    list(check.read("q.tsv", [f"{row}\n".encode() for row in [*rows, "Total\t645"]]))
    check.finish(Needs(method="fine_tuning"))
    (told,) = (one for one in report.findings if one.rule == "traffic")
    assert (
        "'Total' has 52% of the traffic" in told.message or "'Total' has 53% of the traffic" in told.message
    )


def test_line_ends_of_an_old_macintosh_are_told() -> None:
    report = Report()
    assert list(QueryCheck(TASK, report).read("q.txt", [b"red car\ra boat\ra dog\r"])) == []
    assert "found CR as line end" in only(report).message


SENTENCES = {
    "commas": "cars, at night\na dog, barking\nrain, thunder\n",
    "dates": "fireworks of july 4, 2026\na dog\na cat\nthunder\n",
    "numbers first": "2 dogs\n3 cats\n101 dalmatians\n",
    "spaces first": "  2 dogs\n  3 cats\n",
    "a table's word": "query\nred car\n",
    "one line": "red car,12\n",
}


@pytest.mark.parametrize("content", SENTENCES.values(), ids=SENTENCES)
def test_sentences_are_no_table(content: str) -> None:
    found, report = read(content)
    assert list(found) == [line.strip() for line in content.splitlines()]
    assert report.findings == []


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("term\tsource\nred car\ttvr\na boat\ttvr\n", "queries.txt"),
        ("term,clicks,rank\nred car,3,1\na boat,2,1\n", "queries.txt"),
        ("# export of 2026-11-01\nred car\t12\na boat\t3\n", "queries.txt"),
        ("red car\na boat\n", "queries.csv"),
    ],
)
def test_table_whose_columns_can_not_be_told_is_refused_with_the_remedy(content: str, name: str) -> None:
    found, report = read(content, name)
    assert found == {}
    finding = only(report)
    assert (finding.severity, finding.rule, finding.line) == ("error", "columns", 1)
    assert "Put names in the first line: query for the queries and count for their counts" in finding.message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ([{"query": "red car", "weights": WEIGHTS}, {"query": "a boat", "weights": WEIGHTS}], "q.jsonl"),
        ([{"query": "red car", **WEIGHTS}, {"query": "a boat", **WEIGHTS}], "q.jsonl"),
        (f"query,{','.join(TASK.labels)}\nred car,1,0,0,0\na boat,1,0,0,0\n", "q.csv"),
        (f"query\t{chr(9).join(TASK.labels)}\nred car\t1\t0\t0\t0\na boat\t1\t0\t0\t0\n", "q.txt"),
    ],
)
def test_labels_that_exist_are_not_paid_for_again(content: str | Sequence[object], name: str) -> None:
    found, report = read(content, name)
    assert found == {}
    assert {rule for _, rule in report.counts} == {"labels"}
    assert 'dataset.labels = "given"' in report.findings[0].message


def test_line_that_fits_no_table_is_refused_alone() -> None:
    lines = [f"a dog and {number} cats,{number + 1}" for number in range(20)]
    found, report = read("\n".join(["query,count", *lines, "a dog, a cat,3", "none,", "minus,-1", "zero,0"]))
    assert len(found) == 20
    assert [(each.line, each.rule) for each in report.findings if each.severity == "error"] == [
        (22, "columns"),
        (23, "count"),
        (24, "count"),
        (25, "count"),
    ]
    assert "found 3 columns" in report.findings[0].message
    assert "expected a number above 0" in report.findings[1].message


def test_table_that_begins_late_is_told_by_its_lines() -> None:
    found, report = read("\n".join([*["a dog"] * 100, "red car\t12"]))
    assert list(found) == ["a dog"]
    assert "found a number next to a tab ('red car\\t12')" in report.findings[-1].message


@pytest.mark.parametrize("value", ["many", [1], True, -1, 0])
def test_count_of_an_object_must_be_a_number(value: object) -> None:
    finding = only(read([{"query": "red car", "count": value}], "q.jsonl")[1])
    assert (finding.severity, finding.rule) == ("error", "count")


def test_other_fields_of_objects_may_hold_anything() -> None:
    row = {"query": "red car", "hits": ["a", "b"], "weight": "heavy", "metadata": {"count": 3}}
    found, report = read([row], "q.jsonl")
    assert found == {"red car": 1}
    assert report.findings == []


def test_numbers_of_objects_that_are_not_read_are_told() -> None:
    rows = [{"id": 7, "query": "red car", "clicks": 12}, {"id": 8, "query": "a boat", "clicks": "3"}]
    found, report = read(rows, "q.jsonl")
    assert found == {"red car": 1, "a boat": 1}
    assert warned(report) == "found numbers in 'clicks', which are ignored; name the queries' traffic count"


def test_traffic_of_a_query_is_the_sum_of_its_lines() -> None:
    report = Report()
    check = QueryCheck(TASK, report)
    list(check.read("a.txt", [b"red car\n", b"a boat\n", b"Red car!\n"]))
    list(check.read("b.tsv", [b"red car\t10\n", b"a dog\t2.5\n"]))
    assert [check.traffic(query) for query in ("red car", "a boat", "a dog")] == [12, 1, 2.5]
    assert "the same query as line 1 of a.txt; counted there" in report.findings[0].message


@pytest.mark.parametrize("name", ["q.txt", "q.jsonl"])
def test_crlf_and_byte_order_mark_are_mended(name: str) -> None:
    line = "red car" if name == "q.txt" else '{"query": "red car"}'
    found, report = read(f"\ufeff{line}\r\n".encode(), name)
    assert list(found) == ["red car"]
    assert report.counts == {("warning", "encoding"): 1, ("warning", "line-end"): 1}


def test_query_is_told_all_its_faults() -> None:
    _, report = read(f"the sign <video> says a bell\x07{'x' * 600}\n")
    assert {rule for _, rule in report.counts} == {"reserved-word", "control-character", "query-length"}


CELLS = st.text(st.sampled_from('ab1 2,;\t"\r\ufeff{}'), max_size=12)


@given(st.lists(CELLS, max_size=30), st.sampled_from(["q.txt", "q.csv", "q.tsv", "q.jsonl"]))
def test_tables_of_any_kind_never_raise(content: Iterable[str], name: str) -> None:
    found, report = read("\n".join(content), name)
    assert all(count > 0 for count in found.values())
    report.summary().encode()
