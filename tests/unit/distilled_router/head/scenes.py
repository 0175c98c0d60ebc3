"""Rows for a small head."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from distilled_router.head.artifact import Trained
from distilled_router.head.training import Labelled, Training
from distilled_router.task.task import Task

SIGHTS = ("red car", "old tree", "white boat", "tall tower")
SOUNDS = ("bell ringing", "dog barking", "thunder rolling", "engine humming")
NEGATIVES = ("set an alarm for six", "what is nine times seven", "book me a taxi")


def weights(task: Task, *values: float) -> dict[str, float]:
    return dict(zip(task.labels, values, strict=True))


def rows(task: Task) -> list[Labelled]:
    """Return queries for sights and sounds."""
    places = ("at night", "by the sea", "in winter", "near a village", "during a storm")
    return [
        *_of("a {} {}", SIGHTS, places, weights(task, 0.9, 0.0, 0.0, 0.1)),
        *_of("sound of a {} {}", SOUNDS, places, weights(task, 0.2, 0.75, 0.0, 0.05)),
    ]


def _of(
    form: str, things: tuple[str, ...], places: tuple[str, ...], label: Mapping[str, float]
) -> list[Labelled]:
    return [Labelled(form.format(thing, place), (label,)) for thing in things for place in places]


def trained(training: Training) -> Trained:
    """Return the head of a training, after all its passes."""
    while not training.is_finished:
        training.run_pass()
    return training.trained()


def signed(rest: bytes) -> bytes:
    """Return a head's file with the right SHA-256 of what follows it."""
    return b'{"sha256": "' + hashlib.sha256(rest).hexdigest().encode() + rest
