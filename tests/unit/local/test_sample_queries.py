"""The queries that `make local` asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distilled_router.data.conversation import row
from distilled_router.task.task import Task
from local import sample_queries
from operate import route
from operate.errors import OperateError
from stacks.settings import ENVIRONMENTS, PROJECT, Settings, load
from tests.engine.system import changed

WEIGHTS = {"visual": 1.0, "audio": 0.0, "transcription": 0.0, "metadata": 0.0}
MANY = [f"red car {number}" for number in range(20)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sample_queries, "PROJECT", tmp_path)
    return tmp_path


def of_data(**dataset: str | None) -> Settings:
    return changed(load("local"), {"dataset": {"training": None, "holdout": None, **dataset}})


@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ("local", "data/sample_queries.txt"),
        (str(PROJECT / "examples/helpdesk/local.toml"), "examples/helpdesk/sample_queries.txt"),
    ],
)
def test_each_task_has_queries_of_its_own(environment: str, file: str) -> None:
    assert sample_queries.read(load(environment)) == route.read(PROJECT / file)


def test_a_given_file_comes_first(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("my query\n")
    assert sample_queries.read(load("local"), tmp_path / "mine.txt") == ["my query"]


def test_without_such_a_file_the_first_held_out_rows_are_asked(project: Path) -> None:
    lines = [json.dumps(row(Task.load(), query, WEIGHTS)) for query in MANY]
    (project / "holdout.jsonl").write_text("\n".join(lines))
    found = sample_queries.read(of_data(training="training.jsonl", holdout="holdout.jsonl"))
    assert found == MANY[: sample_queries.ASKED]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("queries.txt", "\n".join(MANY)),
        ("queries.csv", "\n".join(["query,count", *(f"{query},2" for query in MANY)])),
        ("queries.jsonl", "\n".join(json.dumps({"query": query}) for query in MANY)),
    ],
)
def test_raw_queries_are_read_in_any_form(project: Path, name: str, text: str) -> None:
    (project / name).write_text(text)
    assert sample_queries.read(of_data(labels="teacher", queries=name)) == MANY[: sample_queries.ASKED]


def test_a_broken_row_names_file_and_next_step(project: Path) -> None:
    (project / "holdout.jsonl").write_text("{}\n")
    with pytest.raises(OperateError, match=r"holdout\.jsonl can't be used") as caught:
        sample_queries.read(of_data(training="training.jsonl", holdout="holdout.jsonl"))
    assert caught.value.advice.startswith("Check it: make dataset-check FILE=")


def test_data_in_s3_leaves_the_queries_of_the_sample_task() -> None:
    assert sample_queries.read(load("prod")) == route.read(ENVIRONMENTS.parent / "data/sample_queries.txt")
