"""`python -m operate dataset-split`: two files of rows that share no similar queries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distilled_router.data.conversation import examples, row
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.task.task import Task
from operate.__main__ import main
from stacks.settings import PROJECT

TASK = Task.load()
type Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def _run(*options: str) -> tuple[int, str]:
        outputs = ["--training", "training.jsonl", "--holdout", "holdout.jsonl"]
        status = main(["dataset-split", "rows.jsonl", *outputs, *options])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return _run


def lines(name: str) -> list[str]:
    return Path(name).read_text(encoding="utf-8").splitlines()


def sample(tmp_path: Path) -> list[str]:
    """All labelled rows of the sample data, in one file."""
    found = [
        line
        for name in ("training", "holdout")
        for line in (PROJECT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(found), encoding="utf-8")
    return found


def test_each_row_is_in_one_file_and_both_can_be_used(run: Run, tmp_path: Path) -> None:
    rows = sample(tmp_path)
    status, text = run()
    assert status == 0, text
    training, holdout = lines("training.jsonl"), lines("holdout.jsonl")
    assert sorted([*training, *holdout]) == sorted(rows)
    assert len(holdout) / len(rows) == pytest.approx(0.2, abs=0.03)
    assert "make dataset-check FILE=training.jsonl HOLDOUT=holdout.jsonl" in text
    with Path("training.jsonl").open("rb") as first, Path("holdout.jsonl").open("rb") as second:
        report = check_dataset(first, second, TASK, "distillation")
    assert report.ok, report.findings
    assert not [each for each in report.findings if "contamination" in each.rule]


def test_each_label_is_held_out_alike(run: Run, tmp_path: Path) -> None:
    rows = sample(tmp_path)
    assert run("--share", "0.3")[0] == 0

    def shares(found: list[str]) -> dict[str, float]:
        labels = [TASK.dominant(each.weights) for each in examples(found, TASK)]
        return {label: labels.count(label) / len(labels) for label in TASK.labels}

    held_out = shares(lines("holdout.jsonl"))
    assert held_out == pytest.approx(shares(rows), abs=0.06)


def test_the_same_rows_give_the_same_files(run: Run, tmp_path: Path) -> None:
    sample(tmp_path)
    run()
    before = lines("holdout.jsonl")
    assert run()[0] == 1
    assert run("--replace")[0] == 0
    assert lines("holdout.jsonl") == before


def test_rows_without_an_answer_are_trained_on(run: Run, tmp_path: Path) -> None:
    unanswered = json.dumps(row(TASK, "what is this", None))
    rows = [*sample(tmp_path), unanswered]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert run()[0] == 0
    assert unanswered in lines("training.jsonl")


@pytest.mark.parametrize("share", ["0", "0.6", "many"])
def test_impossible_share_is_refused(run: Run, share: str) -> None:
    with pytest.raises(SystemExit):
        run("--share", share)


def test_a_broken_line_is_named_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join([*sample(tmp_path)[:3], "{}"]))
    status, text = run()
    assert (status, "rows.jsonl:4: " in text) == (1, True)
    assert not Path("training.jsonl").exists()


def test_the_rows_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    sample(tmp_path)
    assert main(["dataset-split", "rows.jsonl", "--training", "rows.jsonl", "--holdout", "h.jsonl"]) == 1
    assert not Path("h.jsonl").exists()


def test_output_without_a_folder_is_refused(run: Run, tmp_path: Path) -> None:
    sample(tmp_path)
    assert main(["dataset-split", "rows.jsonl", "--training", "no/t.jsonl", "--holdout", "h.jsonl"]) == 1
