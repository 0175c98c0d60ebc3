"""`python -m operate head`: the files that it writes, the answers that it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilled_router.data.conversation import row
from distilled_router.head.model import Head
from distilled_router.task.task import Task
from operate.__main__ import main

TASK = Task.load()
SEEN = {"visual": 0.85, "audio": 0.05, "transcription": 0.05, "metadata": 0.05}
HEARD = {"visual": 0.05, "audio": 0.85, "transcription": 0.05, "metadata": 0.05}
THINGS = ("car", "dog", "tree", "house", "boat", "bird", "train", "cloud", "bridge", "tower", "horse", "lamp")
PLACES = ("road", "hill", "beach", "river", "field", "street", "roof", "garden", "wall", "island")

type Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def _run(*arguments: str) -> tuple[int, str, str]:
        status = main(["head", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return _run


def labelled(things: tuple[str, ...]) -> list[tuple[str, dict[str, float]]]:
    """Return queries that say whether something is seen or heard."""
    return [
        (f"{verb} a {thing} near the {place}", weights)
        for thing in things
        for place in PLACES
        for verb, weights in (("see", SEEN), ("hear the sound of", HEARD))
    ]


@pytest.fixture
def data(tmp_path: Path) -> None:
    """Write training and hold-out rows."""
    for name, things in (("training", THINGS[:8]), ("holdout", THINGS[8:])):
        rows = [row(TASK, query, weights) for query, weights in labelled(things)]
        write(tmp_path / f"{name}.jsonl", rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


TRAIN = ("train", "--training", "training.jsonl", "--holdout", "holdout.jsonl", "--out", "made")


@pytest.mark.usefixtures("data")
def test_trained_head_answers_as_the_rows_taught(run: Run, tmp_path: Path) -> None:
    status, told, _ = run(*TRAIN, "--margin-error", "1", "--margin-dominant", "1")
    assert status == 0
    assert told.startswith("Wrote made/head.bin (")
    report = json.loads((tmp_path / "made/head.json").read_text())
    assert report["rows"] == 160
    assert report["threshold"] is not None
    head = Head.read((tmp_path / "made/head.bin").read_bytes(), TASK.labels)
    assert head.threshold == report["threshold"]
    (tmp_path / "queries.txt").write_text(
        "see a car near the road\n\nhear the sound of a sheep\r\n" + "long " * 400
    )
    status, lines, _ = run("score", "--head", "made/head.bin", "--queries", "queries.txt")
    assert status == 0
    seen, heard, long = map(json.loads, lines.splitlines())
    assert seen.keys() == {"query", "weights", "risk", "accepted", "category"}
    assert (seen["weights"], seen["accepted"]) == (SEEN, True)
    assert (heard["query"], heard["weights"]) == ("hear the sound of a sheep", HEARD)
    # JSON has no infinity.
    assert (long["risk"], long["accepted"]) == (None, False)


@pytest.mark.usefixtures("data")
def test_files_of_queries_and_of_rows_get_equal_answers(run: Run, tmp_path: Path) -> None:
    run(*TRAIN)
    queries = [query for query, _ in labelled(THINGS[8:])]
    write(tmp_path / "queries.jsonl", [{"query": query, "count": 3} for query in queries])
    (tmp_path / "queries.txt").write_text("\n".join(queries))
    answers = {
        run("score", "--head", "made/head.bin", "--queries", name)[1]
        for name in ("holdout.jsonl", "queries.jsonl", "queries.txt")
    }
    assert len(answers) == 1


@pytest.mark.usefixtures("data")
def test_objects_with_weights_teach_the_same(run: Run, tmp_path: Path) -> None:
    run(*TRAIN)
    for name, things in (("training", THINGS[:8]), ("holdout", THINGS[8:])):
        write(
            tmp_path / f"{name}.jsonl",
            [{"query": query, "weights": weights} for query, weights in labelled(things)],
        )
    before = (tmp_path / "made/head.bin").read_bytes()
    assert run(*TRAIN)[0] == 0
    assert (tmp_path / "made/head.bin").read_bytes() == before


@pytest.mark.usefixtures("data")
def test_few_holdout_rows_give_no_threshold_and_say_how_many_are_needed(run: Run) -> None:
    told = run(*TRAIN)[1]
    assert "No threshold: the head can answer only as the last resort." in told
    assert "at least 99" in told


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        (None, "training.jsonl doesn't exist."),
        ("", "training.jsonl has no row with an answer"),
        ('{"query": "red car", "weights": {"visual": 1}}\n', "training.jsonl: line 1: weights for visual"),
        ('{"messages": 5}\n', "training.jsonl: line 1: not a row of a data set"),
    ],
)
def test_unusable_rows_are_told(run: Run, tmp_path: Path, training: str | None, problem: str) -> None:
    write(tmp_path / "holdout.jsonl", [row(TASK, "see a car", SEEN)])
    if training is not None:
        (tmp_path / "training.jsonl").write_text(training)
    status, _, told = run(*TRAIN)
    assert status == 1
    assert problem in told
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("margin", ["0", "-3", "7", "nan", "inf", "x"])
def test_margin_that_the_settings_refuse_is_refused(
    run: Run, margin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*TRAIN, "--margin-error", margin)
    assert ended.value.code == 2
    assert f"argument --margin-error: found {margin}, expected a number above 0" in capsys.readouterr().err


@pytest.mark.usefixtures("data")
def test_file_without_a_query_is_told(run: Run, tmp_path: Path) -> None:
    run(*TRAIN)
    (tmp_path / "none.txt").write_text("\n \n")
    status, _, told = run("score", "--head", "made/head.bin", "--queries", "none.txt")
    assert (status, "none.txt has no query." in told) == (1, True)


@pytest.mark.usefixtures("data")
def test_file_that_is_no_head_of_this_task_is_told(run: Run, tmp_path: Path) -> None:
    run(*TRAIN)
    head = tmp_path / "made/head.bin"
    head.write_bytes(head.read_bytes()[:-1])
    status, _, told = run("score", "--head", "made/head.bin", "--queries", "holdout.jsonl")
    assert status == 1
    assert "made/head.bin can't be used as a head: " in told
