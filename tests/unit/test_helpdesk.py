"""The help desk example: its task, data and environment."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from collections import Counter

from data.generate import Grammar
from distilled_router.data.conversation import examples, normalised
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.task.task import Task
from local.bedrock import rules
from local.bedrock.student import Row, train
from operate import route
from stacks.settings import ENVIRONMENTS, PROJECT, load

FOLDER = PROJECT / "examples" / "helpdesk"
TASK = Task.load(FOLDER)
SPLITS = ("training", "holdout")
GRAMMARS = {split: Grammar.load(split, FOLDER) for split in SPLITS}
ROWS = {
    split: list(examples((FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(), TASK))
    for split in SPLITS
}


def test_task_has_other_labels_in_the_compact_format() -> None:
    assert TASK.labels == ("billing", "technical", "account")
    assert TASK.format == "compact"
    assert TASK.digest() != Task.load().digest()


def test_files_are_current() -> None:
    command = [sys.executable, "data/generate.py", "examples/helpdesk", "--check"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_files_are_valid() -> None:
    with (FOLDER / "training.jsonl").open("rb") as training, (FOLDER / "holdout.jsonl").open("rb") as holdout:
        report = check_dataset(training, holdout, TASK, "distillation")
    assert report.findings == []


def test_there_are_enough_rows_of_every_kind_and_the_readme_states_them() -> None:
    assert 100 <= len(ROWS["training"]) <= 400
    assert len(ROWS["holdout"]) >= 60
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for split, rows in ROWS.items():
        dominant = Counter(TASK.dominant(row.weights) for row in rows)
        assert min(dominant[name] for name in TASK.labels) >= 0.25 * len(rows)
        assert f"| `{split}.jsonl` | {len(rows)} |" in readme


def test_labels_have_a_clear_maximum() -> None:
    for grammar in GRAMMARS.values():
        for group in grammar.groups:
            weights = sorted(grammar.label(group.cues).values(), reverse=True)
            assert weights[0] - weights[1] >= 0.10 - 1e-9, group.cues


def test_splits_share_no_template_and_no_phrase() -> None:
    def templates(grammar: Grammar) -> set[str]:
        every = itertools.chain.from_iterable(group.templates for group in grammar.groups)
        return {normalised(re.sub(r"\{\w+\}", "_", each)) for each in every}

    def phrases(grammar: Grammar) -> set[str]:
        return {normalised(each) for each in itertools.chain.from_iterable(grammar.vocabulary.values())}

    training, holdout = GRAMMARS["training"], GRAMMARS["holdout"]
    assert templates(training) & templates(holdout) == set()
    assert phrases(training) & phrases(holdout) == set()


def test_teacher_prompt_examples_follow_the_label_rules() -> None:
    cues = [("charge",), ("plan",), ("fault",), ("howto",), ("access",), ("profile", "charge")]
    lines = TASK.teacher_prompt.splitlines()
    answers = [TASK.parse(line) for line, before in itertools.pairwise(lines[::-1]) if "Ticket: " in before]
    assert answers[::-1] == [GRAMMARS["training"].label(each) for each in cues]


def test_simple_student_learns_the_task_for_unseen_words() -> None:
    rows = [Row(TASK.student_prompt, row.query, TASK.render(row.weights)) for row in ROWS["training"]]
    student = train(rows)
    right, error = 0, 0.0
    for row in ROWS["holdout"]:
        weights = TASK.parse(student.answer(TASK.student_prompt, row.query))
        right += TASK.dominant(weights) in TASK.dominants(row.weights)
        error += sum(abs(weights[name] - row.weights[name]) for name in TASK.labels) / len(TASK.labels)
    assert right / len(ROWS["holdout"]) > 0.85
    assert error / len(ROWS["holdout"]) < 0.09


def test_teacher_of_the_stand_in_follows_the_full_prompt() -> None:
    """All it knows about this task is in the prompt's description of each label."""
    answers = [(TASK.parse(rules.answer(TASK.teacher_prompt, row.query)), row) for row in ROWS["holdout"]]
    right = sum(TASK.dominant(weights) in TASK.dominants(row.weights) for weights, row in answers)
    assert right / len(answers) > 0.75


def test_sample_queries_are_new_and_routable() -> None:
    known = {normalised(row.query) for rows in ROWS.values() for row in rows}
    asked = route.read(FOLDER / "sample_queries.txt")
    assert len(asked) == 6
    assert all(len(query) <= TASK.max_query_characters and normalised(query) not in known for query in asked)


def test_environment_differs_from_the_local_one_in_little() -> None:
    file = FOLDER / "local.toml"
    first, second = (
        tomllib.loads(each.read_text(encoding="utf-8")) for each in (ENVIRONMENTS / "local.toml", file)
    )
    keys = first.keys() | second.keys()
    assert {key for key in keys if first.get(key) != second.get(key)} == {
        *("name", "task", "dataset", "gate", "head")
    }
    limits = first["gate"].items() ^ second["gate"].items()
    # A smaller hold-out set needs larger margins.
    assert {name for name, _ in limits} == {"non_inferiority_margin"}
    assert {name for name, _ in first["head"].items() ^ second["head"].items()} == {
        *("margin_error", "margin_dominant")
    }
    settings = load(file)
    assert settings.task_folder == FOLDER
    assert settings.owner != load("local").owner
