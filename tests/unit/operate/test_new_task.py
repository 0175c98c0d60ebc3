"""`python -m operate new-task`: a folder that settings accept at once, or none."""

from __future__ import annotations

import itertools
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilled_router.data.similarity import Neighbours
from distilled_router.head.defer import negatives
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import FILES, Task
from evaluation.questions import questions
from local.bedrock import rules
from operate import new_task
from operate.__main__ import main
from stacks.settings import ENVIRONMENTS, PROJECT, SettingsError, load

THREE = ("billing", "technical", "account")
# Labels that are words of the prompts, or of Bedrock's training format.
LABELS = (
    ("for", "query"),
    THREE,
    ("user", "system", "image", "video", "assistant"),
    tuple(f"label-{number}_of-20" for number in range(20)),
)

type Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty project, also for the settings; its environments, beside it, are dev only."""
    folder, environments = tmp_path / "project", tmp_path / "environments"
    folder.mkdir()
    environments.mkdir()
    shutil.copy(ENVIRONMENTS / "dev.toml", environments)
    monkeypatch.setattr(new_task, "PROJECT", folder)
    monkeypatch.setattr(new_task, "ENVIRONMENTS", environments)
    monkeypatch.setattr("stacks.settings.types.PROJECT", folder)
    return folder


@pytest.fixture
def run(project: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def _run(name: str, labels: str, *arguments: str) -> tuple[int, str, str]:
        status = main(["new-task", name, "--labels", labels, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return _run


def entries(project: Path) -> list[str]:
    return sorted(path.relative_to(project).as_posix() for path in project.rglob("*"))


# What is written


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(len(labels)))
def test_folder_is_a_task_with_these_labels(run: Run, project: Path, labels: tuple[str, ...]) -> None:
    assert run("support", ", ".join(labels))[0] == 0
    folder = project / "tasks/support"
    assert {path.name for path in folder.iterdir()} == {
        *FILES,
        "robustness.toml",
        "defer.txt",
        "README.md",
        "dev.toml",
    }
    task = Task.load(folder)
    assert (task.name, task.labels, task.format) == ("support", labels, "compact")
    weights = list(task.static_weights.values())
    assert max(weights) - min(weights) <= 0.01 + 1e-9
    named = {task.dominant(one.weights) for one in Robustness.load(task, folder).other_languages}
    assert named == set(labels[:8])
    assert negatives(folder)
    assert not any("$" in path.read_text(encoding="utf-8") for path in folder.iterdir())


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(len(labels)))
def test_answers_in_the_prompts_are_answers_of_the_task(
    run: Run, project: Path, labels: tuple[str, ...]
) -> None:
    run("support", ",".join(labels))
    task = Task.load(project / "tasks/support")
    lines = task.teacher_prompt.splitlines()
    answers = [line for before, line in itertools.pairwise(lines) if before.startswith("Query: ")]
    assert 3 <= len(answers) <= 6
    assert [task.dominant(task.parse(line)) for line in answers] == [*labels[:5], labels[0]]
    compact = re.search(r"answer ([\d ]+)\"", (project / "tasks/support/robustness.toml").read_text())
    assert compact is not None
    assert task.written_as_asked(compact[1])
    # The stand-in understands both, as a model has to.
    assert task.parse(rules.answer(task.teacher_prompt, "anything")).keys() == set(labels)
    assert rules.wants_compact(task.student_prompt, len(labels))


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(len(labels)))
def test_every_label_is_described_at_a_marked_place(run: Run, project: Path, labels: tuple[str, ...]) -> None:
    run("support", ",".join(labels))
    prompt = (project / "tasks/support/teacher_prompt.txt").read_text()
    assert all(re.search(rf"^- {label}: \[EDIT: [^\]]+\]$", prompt, re.MULTILINE) for label in labels)
    assert len(re.findall(r"\[EDIT: ", prompt)) == prompt.count("]")


def test_variants_of_a_query_are_asked_within_the_limit(run: Run, project: Path) -> None:
    run("support", "billing,technical")
    folder = project / "tasks/support"
    task = Task.load(folder)
    robustness = Robustness.load(task, folder)
    asked = list(questions(robustness.other_languages, task, robustness, 8))
    assert {"paraphrases", "injections", "very_long", "out_of_domain", "other_languages"} <= {
        question.slice for question in asked
    }
    assert all(len(question.query) <= task.max_query_characters for question in asked)


def test_texts_for_the_head_are_none_of_those_that_judge(run: Run, project: Path) -> None:
    run("support", "billing,technical")
    folder = project / "tasks/support"
    judging = Neighbours(Robustness.load(Task.load(folder), folder).out_of_domain)
    texts = negatives(folder)
    assert 50 <= len(texts) <= 100
    assert not [text for text in texts if judging.nearest(text) is not None]


# The settings


def edited(folder: Path) -> None:
    for prompt in folder.glob("*_prompt.txt"):
        prompt.write_text(re.sub(r"\[EDIT: [^\]]+\]", "edited", prompt.read_text()))


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: str(len(labels)))
@pytest.mark.parametrize(
    ("name", "owner"), [("support", "support-router-dev"), ("a_" * 20, "a-" * 19 + "router-dev")]
)
def test_settings_load_when_the_prompts_are_edited(
    run: Run, project: Path, labels: tuple[str, ...], name: str, owner: str
) -> None:
    run(name, ",".join(labels))
    folder = project / "tasks" / name
    with pytest.raises(SettingsError, match=r"teacher_prompt\.txt. Models are paid") as refused:
        load(folder / "dev.toml")
    assert 'replace each "[EDIT: ...]"' in str(refused.value)
    edited(folder)
    settings = load(folder / "dev.toml")
    assert settings.owner == owner
    assert settings.task_folder == folder
    assert settings.dataset.queries == f"tasks/{name}/queries.txt"


def test_settings_take_labelled_rows_as_their_comments_say(run: Run, project: Path) -> None:
    run("support", "billing,technical")
    file = project / "tasks/support/dev.toml"
    edited(file.parent)
    text = re.sub(r'^(labels = "teacher"|queries = .*)\n', "", file.read_text(), flags=re.M)
    file.write_text(re.sub(r"^# (training|holdout) = ", r"\1 = ", text, flags=re.M))
    dataset = load(file).dataset
    assert (dataset.labels, dataset.training) == ("given", "tasks/support/training.jsonl")
    assert dataset.holdout == "tasks/support/holdout.jsonl"


def test_settings_are_those_of_dev_but_for_the_task(run: Run, project: Path) -> None:
    run("support", "billing,technical", "--folder", "more/tasks/support")
    text = (project / "more/tasks/support/dev.toml").read_text()
    assert text.startswith("#:schema ../../../environments/schema.json\n")
    dev = tomllib.loads((ENVIRONMENTS / "dev.toml").read_text())
    ours = tomllib.loads(text)
    assert {key for key in dev | ours if dev.get(key) != ours.get(key)} == {
        *("name", "task", "dataset", "labelling", "gate")
    }
    assert dict(dev["gate"].items() ^ ours["gate"].items()).keys() == {
        *("minimum_examples", "non_inferiority_margin")
    }


def test_next_steps_fit_a_terminal(run: Run) -> None:
    status, told, _ = run("a-task-of-twenty-five-ch", ",".join(f"label-{number}" for number in range(20)))
    assert status == 0
    assert max(map(len, told.splitlines()[1:])) <= 80
    for step in ("grep -n EDIT: tasks/", "make dataset-check FILE=tasks/", "make synth ENV=tasks/a-task-of"):
        assert step in told


def test_folder_can_be_named(run: Run, project: Path) -> None:
    status, told, _ = run("support", "billing,technical", "--folder", "examples/support/")
    assert status == 0
    assert Task.load(project / "examples/support").name == "support"
    assert 'task = "examples/support"\n' in (project / "examples/support/dev.toml").read_text()
    assert "make local ENV=examples/support/dev.toml" in told
    assert "grep -n EDIT: examples/support/*.t*" in (project / "examples/support/README.md").read_text()


# What is refused


@pytest.mark.parametrize(
    ("name", "labels", "rule"),
    [
        ("Support", "billing,account", "name must be lower-case letters, digits, - and _, at most 40"),
        ("../support", "billing,account", "name must be lower-case letters"),
        ("support", "billing,Account", "beginning with a letter; found 'Account'"),
        ("support", "billing,,account", "beginning with a letter; found ''"),
        ("support", "billing," + "a" * 41, "at most 40"),
        ("support", "billing", "labels must be 2 to 20 different names; found 1"),
        ("support", "a,b,a", "labels must be 2 to 20 different names; found 3, 2 of them different"),
        ("support", ",".join(f"l{n}" for n in range(21)), "labels must be 2 to 20 different names; found 21"),
    ],
)
def test_name_and_labels_follow_the_rules_of_a_task(
    run: Run, project: Path, name: str, labels: str, rule: str
) -> None:
    status, told, error = run(name, labels)
    assert (status, told) == (1, "")
    assert rule in error
    assert "static_weights" not in error
    assert "Nothing was written." in error
    assert entries(project) == []


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "..",
        "../support",
        "tasks/../support",
        "/tmp/support",
        ".git/support",
        "a b",
        "größe",
        "a" * 101,
        "a\n",
        "-a",
        "a\0",
    ],
)
def test_folder_that_the_settings_or_a_shell_refuse_is_refused(run: Run, project: Path, folder: str) -> None:
    status, _, error = run("support", "billing,account", f"--folder={folder}")
    assert status == 1
    assert f"The folder {folder!r} can't be used: it must be inside the project" in error
    assert entries(project) == []


def test_folder_behind_a_link_out_of_the_project_is_refused(
    run: Run, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (project / "tasks").symlink_to(elsewhere)
    assert "must be inside the project" in run("support", "billing,account")[2]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("create", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_exists_is_kept(run: Run, project: Path, create: Any) -> None:
    (project / "tasks").mkdir()
    create(project / "tasks/support")
    status, _, error = run("support", "billing,account")
    assert status == 1
    assert "tasks/support exists already." in error
    assert entries(project) == ["tasks", "tasks/support"]


def test_parent_that_is_a_file_is_told(run: Run, project: Path) -> None:
    (project / "tasks").touch()
    status, _, error = run("support", "billing,account")
    assert status == 1
    assert "tasks/support can't be written: " in error
    assert entries(project) == ["tasks"]


@pytest.mark.parametrize(
    ("failure", "status"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130)]
)
def test_folder_is_removed_again_if_a_file_is_not_written(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, status: int
) -> None:
    write = Path.write_text

    def failing(path: Path, *arguments: Any, **options: Any) -> int:
        if path.name == "defer.txt":
            raise failure
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", failing)
    assert run("support", "billing,account")[0] == status
    assert entries(project) == []


def test_files_of_others_survive_a_failure(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(_: Path) -> None:
        (project / "tasks/other").mkdir()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(new_task, "negatives", other)
    assert run("support", "billing,account")[0] == 1
    assert entries(project) == ["tasks", "tasks/other"]


def test_template_has_no_files_besides_those_that_are_written() -> None:
    folder = PROJECT / "operate" / "task_template"
    assert {path.name for path in folder.iterdir()} == set(new_task.WRITTEN)
