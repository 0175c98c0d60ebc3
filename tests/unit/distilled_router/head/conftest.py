"""A small trained head, and the rows that it was trained on."""

from __future__ import annotations

import pytest

from distilled_router.head import artifact
from distilled_router.head.training import Labelled, Training
from distilled_router.task.task import Task

SIGHTS = ("red car", "old tree", "white boat", "tall tower")
SOUNDS = ("bell ringing", "dog barking", "thunder rolling", "engine humming")
NEGATIVES = ("set an alarm for six", "what is nine times seven", "book me a taxi")


def rows(task: Task) -> list[Labelled]:
    """Return queries for sights and sounds."""
    sight = dict(zip(task.labels, (0.9, 0.0, 0.0, 0.1), strict=True))
    sound = dict(zip(task.labels, (0.2, 0.75, 0.0, 0.05), strict=True))
    places = ("at night", "by the sea", "in winter", "near a village", "during a storm")
    return [
        *(Labelled(f"a {thing} {place}", (sight,)) for thing in SIGHTS for place in places),
        *(Labelled(f"sound of a {thing} {place}", (sound,)) for thing in SOUNDS for place in places),
    ]


def trained(training: Training) -> artifact.Trained:
    while not training.is_finished:
        training.run_pass()
    return training.trained()


@pytest.fixture(scope="session")
def task() -> Task:
    return Task.load()


@pytest.fixture(scope="session")
def small(task: Task) -> artifact.Trained:
    """Return a head of few rows."""
    return trained(Training.start(rows(task), NEGATIVES, task))


@pytest.fixture(scope="session")
def content(small: artifact.Trained) -> bytes:
    """Return the file of a head with the threshold 0.05."""
    return artifact.write(small, threshold=0.05, about={"release": "0123456789ab"})
