"""`python -m operate dataset-check`: how it recognizes a file, what it prints, and its exit status."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilled_router.data.conversation import row
from distilled_router.data.preflight import Needs
from operate import dataset_check
from operate.__main__ import main
from operate.console import Terminal
from tests.unit.different import different
from tests.unit.distilled_router.data.row_scenes import HOLDOUT, TASK, WEIGHTS, changed, encoded, good
from tests.unit.hostile import HOSTILE, controls

PROJECT = Path(__file__).parents[3]
QUERIES = different(118)

type Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Write files, run the command in their folder; return its exit status and its output."""
    monkeypatch.chdir(tmp_path)

    def _check(*arguments: str, **files: bytes | list[bytes]) -> tuple[int, str]:
        for name, content in files.items():
            path = tmp_path / name.replace("_", ".")
            path.write_bytes(content if isinstance(content, bytes) else b"".join(content))
        status = main(["dataset-check", *arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return _check


def test_good_rows_are_usable(check: Check) -> None:
    assert check("rows.jsonl", rows_jsonl=good(100)) == (
        0,
        "Usable as rows for distillation: 0 errors and 0 warnings in rows.jsonl (100 lines).\n",
    )


def test_neither_file_names_nor_rows_control_the_terminal(check: Check, tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "").replace("\ud800", "\udcff")
    folder = tmp_path / name[:60]
    folder.mkdir()
    rows = [encoded({"messages": HOSTILE.replace("\ud800", "")}), b"\x1b]0;title\x07", *good(1)]
    (folder / "rows.jsonl").write_bytes(b"\n".join(rows))
    for arguments in (["rows.jsonl"], ["none.jsonl"], ["rows.jsonl", "--holdout", "none.jsonl"]):
        given = [str(folder / word) if word.endswith("jsonl") else word for word in arguments]
        status, text = check(*given)
        assert status in (1, 2)
        assert "\\u001b]0;title" in text
        assert controls(text) == []


def test_a_link_out_of_the_project_is_refused(check: Check, tmp_path: Path) -> None:
    """A file outside was named on purpose; a link inside leads there by accident, or by intent."""
    folder = PROJECT / ".cache" / f"links-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        secret = tmp_path / "secret.jsonl"
        secret.write_bytes(b"".join(good(100)))
        assert check(str(secret))[0] == 0
        (folder / "rows.jsonl").symlink_to(secret)
        (folder / "linked").symlink_to(tmp_path)
        for name in ("rows.jsonl", "linked/secret.jsonl"):
            status, text = check(str(folder / name))
            assert status == 2
            assert "can't be read: a link leads out of" in text
    finally:
        shutil.rmtree(folder)


def test_rows_are_compared_with_the_holdout(check: Check) -> None:
    status, text = check(
        *("rows.jsonl", "--holdout", "held.jsonl"), rows_jsonl=good(100), held_jsonl=[*good(1), *HOLDOUT]
    )
    assert status == 1
    assert "in rows.jsonl (100 lines) and held.jsonl (101 lines)." in text
    assert "held.jsonl:1 error contamination: found a query of rows.jsonl:1" in text


def test_method_decides_the_counts(check: Check) -> None:
    assert check("rows.jsonl", rows_jsonl=good(50))[0] == 1
    assert check("rows.jsonl", "--method", "fine_tuning", rows_jsonl=good(50))[0] == 0


@pytest.mark.parametrize("first", [b"", b"  \n"])
def test_raw_queries_are_told_from_rows(check: Check, first: bytes) -> None:
    text = "\n".join(QUERIES).encode()
    rows = [encoded({"query": query, "source": "tvr"}) for query in QUERIES]
    assert check("queries.txt", queries_txt=first + text)[1].startswith("Usable as raw queries")
    assert check("queries.jsonl", queries_jsonl=[first, *rows])[1].startswith("Usable as raw queries")
    assert check("rows.jsonl", rows_jsonl=[first, *good(100)])[1].startswith(
        "Re" if first else "Usable as rows"
    )


def test_raw_queries_that_are_split_must_leave_enough_to_train_on(check: Check) -> None:
    text = "\n".join(QUERIES[:117]).encode()
    assert "found 117 usable, different queries, at least 118" in check("queries.txt", queries_txt=text)[1]
    assert check("queries.txt", "--holdout", "held.jsonl", held_jsonl=HOLDOUT)[0] == 0


def test_raw_queries_and_their_holdout_are_checked(check: Check) -> None:
    status, text = check(
        *("queries.txt", "--holdout", "held.jsonl"),
        queries_txt="\n".join(QUERIES).encode(),
        held_jsonl=[*HOLDOUT, b"{}\n"],
    )
    assert status == 1
    assert "held.jsonl:101 error keys: a row lacks" in text


def test_holdout_of_raw_queries_is_compared_with_the_gate(check: Check) -> None:
    status, text = check(
        *("queries.txt", "--holdout", "held.jsonl", "--environment", "dev"),
        queries_txt="\n".join(QUERIES).encode(),
        held_jsonl=HOLDOUT[:50],
    )
    assert status == 1
    assert "found 50 rows, and gate.minimum_examples is 100" in " ".join(text.split())


def test_findings_come_with_counts_places_and_remedies(check: Check) -> None:
    status, text = check("rows.jsonl", rows_jsonl=[*good(100), b"\n", *good(3), b"{\n"])
    assert status == 1
    assert text.splitlines() == [
        "Refused as rows for distillation: 2 errors and 3 warnings in rows.jsonl (105 lines).",
        "",
        "rule         severity   count",
        "─────────────────────────────",
        "blank-line   error          1",
        "json         error          1",
        "duplicate    warning        3",
        "",
        "rows.jsonl:101 error blank-line: found a blank line, which Bedrock can't parse; remove it",
        "rows.jsonl:105 error json: Expecting property name enclosed in double quotes at character 1; "
        "expected one JSON object",
        *(
            f"rows.jsonl:{102 + place} warning duplicate: the same query and answer as line {1 + place}; "
            "remove one"
            for place in range(3)
        ),
    ]


def test_more_findings_are_shown_on_request(check: Check) -> None:
    rows = [*good(100), *(b"{" + b" " * number + b"\n" for number in range(30))]
    text = check("rows.jsonl", rows_jsonl=rows)[1]
    assert text.count("json: ") == 10
    assert "The first 10 findings of each rule are shown; KEEP=100 shows more" in text
    text = check("rows.jsonl", "--keep", "50", rows_jsonl=rows)[1]
    assert text.count("json: ") == 30
    assert "KEEP" not in text


def test_like_findings_are_shown_once_with_their_number(check: Check) -> None:
    text = check("rows.jsonl", rows_jsonl=[*good(100), *[b"\n"] * 30])[1]
    assert text.count("blank-line: ") == 1
    assert "remove it (and 29 more like it)\n" in text
    assert "KEEP" not in text


def test_findings_are_broken_between_words_in_a_narrow_terminal(check: Check, tmp_path: Path) -> None:
    check("rows.jsonl", rows_jsonl=[*good(100), changed(system=[{"text": "Be quick."}])])
    found, shown = (
        dataset_check.check(tmp_path / "rows.jsonl", None, Needs(method="distillation")),
        io.StringIO(),
    )
    dataset_check.show(found, Terminal(file=shown, width=80, force_terminal=True, color_system=None))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert "expected the task's student prompt, character by character" in " ".join(map(str.strip, lines))


@pytest.mark.parametrize("name", ["log.txt", "log.csv", "log.tsv"])
def test_log_export_is_taken_and_its_columns_are_named(check: Check, name: str) -> None:
    rows = "\r\n".join([f"{query}\t{place}" for place, query in enumerate(QUERIES, start=1)])
    status, text = check(name, **{name.replace(".", "_"): f"\ufeffsearch\thits\r\n{rows}".encode()})
    assert status == 0, text
    assert (
        "columns: found a table separated by tabs; queries from 'search' and their traffic from 'hits'"
        in text
    )


def test_text_of_a_file_is_no_markup(check: Check) -> None:
    rows = [*good(100), encoded({**row(TASK, "a red car", WEIGHTS), "[red]key[/red]": 1})]
    assert "'[red]key[/red]'" in check("rows.jsonl", rows_jsonl=rows)[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"".join(good(100))), "found gzip, expected plain UTF-8 text; unpack it"),
        (b"".join(good(100)).decode().encode("utf-16"), "found UTF-16 text"),
        (b"x" * 1_000_000, "one row per line, and short ones"),
    ],
)
def test_foreign_file_is_refused_with_its_name(check: Check, content: bytes, message: str) -> None:
    for name in ("file.jsonl", "file.txt"):
        status, text = check(name, **{name.replace(".", "_"): content})
        assert status == 1
        assert f"{name} error encoding: " in text or f"{name}:1 error " in text
        assert message in text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.jsonl", "missing.jsonl doesn't exist."),
        (".", ". is a folder: name a file in it."),
        ("empty.jsonl", "empty.jsonl is empty."),
        ("empty.jsonl/below", "empty.jsonl/below can't be read: Not a directory."),
    ],
)
def test_file_that_can_not_be_checked_is_named_in_one_line(check: Check, path: str, message: str) -> None:
    assert check(path, empty_jsonl=b"") == (2, f"Failed: {message}\n")
    assert check("rows.jsonl", "--holdout", path, rows_jsonl=good(100)) == (2, f"Failed: {message}\n")


def test_unreadable_file_is_one_line(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def refused(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "rows.jsonl":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    assert check("rows.jsonl") == (2, "Failed: rows.jsonl can't be read: Permission denied.\n")


def test_rows_are_checked_for_the_task_that_is_named(check: Check, tmp_path: Path) -> None:
    assert check("rows.jsonl", "--task", "nowhere", rows_jsonl=good(100))[0] == 2
    for file in (PROJECT / "task").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "student_prompt.txt").write_text(f"{TASK.student_prompt} Be quick.")
    status, text = check("rows.jsonl", "--task", str(tmp_path), rows_jsonl=good(100))
    assert status == 1
    assert "the router uses that one" in text


def test_command_runs_without_aws_and_stops_with_its_reader(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"".join(json.dumps([]).encode() + b"\n" for _ in range(5_000)))
    command = [
        sys.executable,
        "-m",
        "operate",
        "dataset-check",
        str(tmp_path / "rows.jsonl"),
        "--keep",
        "9999",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Refused")
        process.stdout.close()
        _, errors = process.communicate(timeout=300)
    assert errors == b""
    assert process.returncode == 1


def test_rows_of_another_task_ask_for_its_folder(check: Check) -> None:
    text = check("rows.jsonl", rows_jsonl=[changed(system=[{"text": "Weigh billing and account."}])] * 3)[1]
    assert "give its folder, such as TASK=tasks/support" in text
    assert "TASK=" not in check("rows.jsonl", rows_jsonl=good(20))[1]
