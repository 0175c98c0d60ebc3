"""The routing task of an environment: another folder, and the messages for an invalid one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilled_router.task.task import Task
from stacks.settings import PROJECT, Problem, Settings

Changed = Callable[[dict[str, Any]], Settings]
Problems = Callable[[dict[str, Any]], dict[str, Problem]]

FOLDER = "tasks/mine"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the project's task in another project, as `tasks/mine`."""
    monkeypatch.setattr("stacks.settings.types.PROJECT", tmp_path)
    return Path(shutil.copytree(PROJECT / "task", tmp_path / FOLDER))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_task_is_the_projects_own_unless_another_is_named(changed: Changed) -> None:
    assert changed({}).task_folder == PROJECT / "task"


def test_another_task_is_named_by_its_folder(changed: Changed, mine: Path) -> None:
    settings = changed({"task": FOLDER})
    assert settings.task_folder == mine
    assert Task.load(settings.task_folder).labels == Task.load().labels


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("task.toml", "max_query_characters", "max_chars", "missing or unknown: max_chars"),
        ("task.toml", "= 512", '= "512"', "max_query_characters must be a whole number"),
        ("task.toml", '"compact"', "7", "format must be one of compact, json"),
        ("task.toml", '["visual"', '[1, "visual"', "labels must be a list of lower-case names"),
        ("task.toml", "visual = 0.40", "visual = true", "static_weights must give every label a number"),
        ("task.toml", "[static_weights]", "static_weights", "Expected"),
        ("teacher_prompt.txt", "metadata", "meta data", "teacher_prompt.txt doesn't name metadata"),
        ("student_prompt.txt", "metadata", "meta data", "student_prompt.txt doesn't name metadata"),
        ("student_prompt.txt", "Weigh", "User: weigh", "student_prompt.txt contains User:, a reserved word"),
    ],
)
def test_a_task_that_cannot_be_used_is_a_problem_of_its_key(
    problems: Problems, mine: Path, file: str, old: str, new: str, said: str
) -> None:
    replace(mine / file, old, new)
    found = problems({"task": FOLDER, "name": "Video"})
    # With all others, before anything is declared.
    assert list(found) == ["name", "task"]
    assert found["task"].found == f'"{FOLDER}"'
    assert f"; {FOLDER}" in found["task"].allowed
    assert said in found["task"].allowed


@pytest.mark.parametrize("file", ["task.toml", "teacher_prompt.txt", "student_prompt.txt"])
def test_a_missing_file_is_named_within_the_project(problems: Problems, mine: Path, file: str) -> None:
    (mine / file).unlink()
    assert str(problems({"task": FOLDER})["task"]) == (
        f'environments/test.toml: task: found "{FOLDER}"; allowed: a folder with a valid task; '
        f"{FOLDER}/{file}: No such file or directory; "
        "a task's folder contains task.toml, teacher_prompt.txt, student_prompt.txt"
    )


def test_a_link_out_of_the_project_is_refused(problems: Problems, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(PROJECT / "task")
    assert "inside the project" in problems({"task": "elsewhere"})["task"].allowed


@pytest.mark.parametrize("file", ["task.toml", "teacher_prompt.txt", "student_prompt.txt", "robustness.toml"])
def test_a_file_that_links_out_of_its_folder_is_refused(
    problems: Problems, mine: Path, tmp_path_factory: pytest.TempPathFactory, file: str
) -> None:
    """A prompt is sent to a model and published in a bundle."""
    secret = tmp_path_factory.mktemp("elsewhere") / file
    secret.write_text((mine / file).read_text() if (mine / file).exists() else 'filler = "x"')
    (mine / file).unlink(missing_ok=True)
    (mine / file).symlink_to(secret)
    assert f"{FOLDER}/{file}: a link leads out of {FOLDER}" in problems({"task": FOLDER})["task"].allowed


def test_the_projects_own_task_is_checked_too(problems: Problems, mine: Path) -> None:
    """Here, another project has none."""
    assert "task/task.toml: No such file" in problems({})["task"].allowed
