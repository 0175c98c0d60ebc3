"""Synthesis compares the files on this machine with what job and gate need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stacks import preflight
from stacks.settings import Settings, SettingsError, load

RAW = {"labels": "teacher", "training": None, "holdout": None, "queries": "queries.txt"}


def changed(**changes: dict[str, Any]) -> Settings:
    """Return dev's settings with changes by table."""
    values = load("dev").model_dump()
    for table, new in changes.items():
        values[table] = {**values[table], **new}
    return Settings.model_validate(values)


def test_samples_satisfy_their_settings() -> None:
    for environment in ("local", "dev"):
        preflight.enforce(load(environment))


def test_holdout_file_that_the_gate_would_refuse_stops_the_synthesis() -> None:
    with pytest.raises(SettingsError) as caught:
        preflight.enforce(changed(gate={"minimum_examples": 253}))
    (problem,) = caught.value.problems
    assert (problem.key, problem.found) == ("dataset.holdout", '"data/holdout.jsonl"')
    assert "found 252 rows, and gate.minimum_examples is 253" in problem.allowed


def test_raw_queries_that_hold_out_too_few_stop_the_synthesis(tmp_path: Path) -> None:
    """Measured before: 98 hold-out rows against a minimum of 200, after labels and job were paid."""
    text = "".join(f"query number {number}\n" for number in range(980))
    (tmp_path / "queries.txt").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        preflight.enforce(changed(dataset=RAW, gate={"minimum_examples": 200}), tmp_path)
    (problem,) = caught.value.problems
    assert problem.key == "dataset.queries"
    assert "holds out at most 98 of the 980 queries" in problem.allowed
    preflight.enforce(changed(dataset=RAW, gate={"minimum_examples": 98}), tmp_path)


@pytest.mark.parametrize(
    ("key", "rows", "distillation", "message"),
    [
        ("training", 99, {}, "found 99 usable rows, at least 100"),
        ("training", 15_001, {}, "found 15001 rows, at most 15000"),
        (
            "training",
            199,
            {
                "method": "fine_tuning",
                "student": "amazon.nova-2-lite-v1:0:256k",
                "max_response_length": None,
                "hyperparameters": {},
            },
            "found 199 usable rows, at least 200",
        ),
        ("holdout", 20_001, {}, "found 20001 rows, at most 20000"),
    ],
)
def test_files_that_no_job_takes_stop_the_synthesis(
    tmp_path: Path, key: str, rows: int, distillation: dict[str, Any], message: str
) -> None:
    for name in ("training", "holdout"):
        text = "{}\n" * (rows if name == key else 300)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    given = {"training": "training.jsonl", "holdout": "holdout.jsonl"}
    with pytest.raises(SettingsError) as caught:
        preflight.enforce(changed(dataset=given, distillation=distillation), tmp_path)
    (problem,) = caught.value.problems
    assert (problem.key, problem.found) == (f"dataset.{key}", f'"{key}.jsonl"')
    assert message in problem.allowed


def test_file_without_a_query_stops_the_synthesis_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("term\tsource\nred car\ttvr\na boat\ttvr\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        preflight.enforce(changed(dataset=RAW), tmp_path)
    assert "found a table separated by tabs, whose first line is 'term', 'source'" in str(caught.value)


def test_objects_in_s3_are_left_to_the_deployment() -> None:
    preflight.enforce(load("prod"))
