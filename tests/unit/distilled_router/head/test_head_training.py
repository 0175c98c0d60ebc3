from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distilled_router.head import artifact
from distilled_router.head.model import Head
from distilled_router.head.training import Labelled, NoLabelsError, Training
from distilled_router.task.task import Task
from tests.unit.distilled_router.head.scenes import NEGATIVES, rows, trained, weights

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make trainings short, with many passes."""
    monkeypatch.setattr("distilled_router.head.training._LEAST_VISITS", 600)
    monkeypatch.setattr("distilled_router.head.training._LEAST_VISITS_OF_TRIAL", 100)
    monkeypatch.setattr("distilled_router.head.training._VISITS_A_PASS", 170)


def test_a_training_that_is_killed_after_each_pass_ends_in_the_same_bytes(task: Task) -> None:
    given = rows(task)
    whole = artifact.write(trained(Training.start(given, NEGATIVES, task)), threshold=None, about={})

    training, passes = Training.start(given, NEGATIVES, task), 0
    while not training.is_finished:
        training.run_pass()
        training, passes = Training.resume(training.state(), given, NEGATIVES, task), passes + 1

    assert passes > 20
    assert artifact.write(training.trained(), threshold=None, about={}) == whole
    resumed = Training.resume(training.state(), given, NEGATIVES, task)
    assert artifact.write(resumed.trained(), threshold=None, about={}) == whole


SCRIPT = """
import sys
sys.path[:0] = [".", "lambda"]
from distilled_router.head import artifact, training
from distilled_router.task.task import Task
from tests.unit.distilled_router.head.scenes import NEGATIVES, rows, trained
training._LEAST_VISITS, training._LEAST_VISITS_OF_TRIAL = 300, 60
task = Task.load()
head = trained(training.Training.start(rows(task), NEGATIVES, task))
sys.stdout.buffer.write(artifact.write(head, threshold=None, about={}))
"""


def test_hash_seeds_do_not_change_a_byte() -> None:
    written = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=PROJECT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert len(written[0]) > 10_000
    assert written[0] == written[1]


def test_a_state_of_other_rows_or_a_damaged_one_starts_again(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows(task)
    training = Training.start(given, NEGATIVES, task)
    start = training.state()
    training.run_pass()
    state = training.state()
    others = [
        Training.resume(state, given[:-1], NEGATIVES, task),
        Training.resume(state, given, NEGATIVES[:-1], task),
        Training.resume(state, given, NEGATIVES, replace(task, format="json", labels=task.labels[::-1])),
    ]

    assert Training.resume(state, given, NEGATIVES, task).state() == state
    assert [each.state() == state for each in others] == [False] * 3
    for wrong in (b"", b"x", state[:-1], state[:50] + b"x" + state[51:], state + b"x"):
        assert Training.resume(wrong, given, NEGATIVES, task).state() == start
    monkeypatch.setattr("distilled_router.head.training.VERSION", 99)
    assert (
        Training.resume(state, given, NEGATIVES, task).state()
        == Training.start(given, NEGATIVES, task).state()
    )


def test_without_labels_there_is_no_head(task: Task) -> None:
    for given in ([], [Labelled("a red car", ())]):
        with pytest.raises(NoLabelsError, match="nothing to learn"):
            Training.start(given, NEGATIVES, task)
        with pytest.raises(NoLabelsError, match="nothing to learn"):
            Training.resume(b"", given, NEGATIVES, task)


def test_one_row_is_enough(task: Task) -> None:
    label = weights(task, 0.9, 0.0, 0.0, 0.1)
    head = trained(Training.start([Labelled("a red car", (label,))], (), task))

    content = artifact.write(head, threshold=None, about={})
    assert Head.read(content, task.labels).answer("a blue car").weights == label


def test_passes_are_neither_run_too_often_nor_left_out(task: Task) -> None:
    training = Training.start(rows(task), NEGATIVES, task)
    with pytest.raises(ValueError, match="run the passes that are left"):
        training.trained()
    trained(training)
    with pytest.raises(ValueError, match="no pass is left"):
        training.run_pass()


def test_samples_that_disagree_make_an_answer_less_sure(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilled_router.head.training._LEAST_VISITS", 4_000)
    given = rows(task)
    sight, sound = given[0].samples[0], given[-1].samples[0]
    split = [
        Labelled(f"a strange thing {place}", (sight, sight, sound)) for place in ("here", "there", "now")
    ]
    head = trained(Training.start([*given, *split], NEGATIVES, task))
    answers = Head.read(artifact.write(head, threshold=None, about={}), task.labels)

    unsure = answers.answer(split[0].query)
    assert unsure.weights == dict(sight)
    # A third of the samples are 0.375 away.
    assert 0.08 < unsure.risk < 0.17
    assert answers.answer(given[0].query).risk < 0.03


def test_a_head_has_at_most_63_categories(task: Task) -> None:
    given = [
        Labelled(f"thing {number} of many", (weights(task, number / 100, 1 - number / 100, 0.0, 0.0),))
        for number in range(80)
    ]
    head = trained(Training.start(given, NEGATIVES, task))

    assert 50 <= len(head.categories) <= 63
    assert Head.read(artifact.write(head, threshold=None, about={}), task.labels).answer("thing 3 of many")
