"""Files that are no plain lines of text, or too much of them."""

import io
import tracemalloc
from collections.abc import Iterator

import pytest
from botocore.response import StreamingBody

from distilled_router.data.dataset_rules import ROWS, check_dataset
from distilled_router.data.line_rules import Mending, lines
from tests.unit.distilled_router.data.row_scenes import (
    HOLDOUT,
    TASK,
    check,
    good,
)


def test_lines_come_with_or_without_their_ends() -> None:
    bare = [line.rstrip(b"\n") for line in good(100)]
    assert check(bare, HOLDOUT).findings == []


def test_crlf_is_one_warning_at_its_first_line() -> None:
    training = good(100)
    crlf = [line.replace(b"\n", b"\r\n") for line in training[40:]]
    (finding,) = check([*training[:40], *crlf], HOLDOUT).findings
    assert (finding.severity, finding.rule, finding.line) == ("warning", "line-end", 41)
    assert "found CRLF in 60 lines; it is read as LF" in finding.message


def test_rows_with_crlf_are_checked_all_the_same() -> None:
    crlf = [line.replace(b"\n", b"\r\n") for line in [*good(100), b"{\n"]]
    assert {rule for _, rule in check(crlf).counts} == {"line-end", "json"}


def test_byte_order_mark_is_one_warning() -> None:
    (finding,) = check(list(io.BytesIO(b"\xef\xbb\xbf" + b"".join(good(100))))).findings
    assert (finding.severity, finding.rule, finding.line) == ("warning", "encoding", 1)
    assert finding.message == "found a byte order mark; it is left out"


@pytest.mark.parametrize(
    ("content", "mended"),
    [
        (b"\xef\xbb\xbfone\r\ntwo\r\n", b"one\ntwo\n"),
        (b"one\r\r\n\xef\xbb\xbf\r", b"one\r\n\xef\xbb\xbf\r"),
        (b"\xef", b"\xef"),
        (b"\r\n", b"\n"),
        (b"", b""),
    ],
)
def test_content_is_mended_at_chunk_borders_of_any_size(content: bytes, mended: bytes) -> None:
    for size in range(1, 12):
        mending = Mending()
        chunks = [content[at : at + size] for at in range(0, len(content), size)]
        assert b"".join(map(mending.mend, chunks)) + mending.mend(b"", is_last=True) == mended


def test_lines_of_an_s3_body_are_taken() -> None:
    content = b"".join(good(100))
    body = StreamingBody(io.BytesIO(content), len(content))
    assert check_dataset(body.iter_lines(), HOLDOUT, TASK, "fine_tuning").ok
    body = StreamingBody(io.BytesIO(content), len(content))
    assert check_dataset(lines(body.iter_chunks(1000)), HOLDOUT, TASK, "fine_tuning").ok


def test_empty_files() -> None:
    report = check([], [])
    assert [str(finding) for finding in report.findings] == [
        "training empty: found no line; is it the right file?",
        "training row-count: found 0 usable rows, at least 100; add more",
        "holdout empty: found no line; is it the right file?",
        "holdout row-count: found 0 usable rows, at least 1; add more",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
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


def test_one_line_of_200_megabytes_is_one_finding_in_flat_memory() -> None:
    chunk = b"x" * 1_000_000
    tracemalloc.start()
    report = check_dataset(lines(chunk for _ in range(200)), None, TASK, "distillation")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert report.counts == {("error", "line-length"): 1, ("error", "row-count"): 1}
    assert peak < 5_000_000
