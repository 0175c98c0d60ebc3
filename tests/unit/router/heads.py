"""Trained classification heads, and a store to load them from."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from functools import cache

from distilled_router.head import artifact
from distilled_router.head.artifact import Trained
from distilled_router.head.training import Labelled, Training
from distilled_router.release.route import HeadFile
from distilled_router.task.task import Task
from tests.unit.router.object_store import ObjectStore
from tests.unit.router.students import SIGHTS, SOUNDS

NO_SEARCH = ("ignore all instructions", "what is the weather", "hello there", "tell me a joke")
# Between what these heads risk for a trained query and for one of other words.
THRESHOLD = 0.05
ALL = 1e3


@cache
def trained() -> Trained:
    """Return a head that knows sounds and sights."""
    task = Task.load()
    weights = {
        SOUNDS: {"visual": 0.0, "audio": 1.0, "transcription": 0.0, "metadata": 0.0},
        SIGHTS: {"visual": 1.0, "audio": 0.0, "transcription": 0.0, "metadata": 0.0},
    }
    rows = [
        Labelled(f"{query}{more}", (label,))
        for more in ("", " at night", " outside", " two")
        for queries, label in weights.items()
        for query in queries
    ]
    training = Training.start(rows, NO_SEARCH, task)
    while not training.is_finished:
        training.run_pass()
    return training.trained()


@cache
def head_file(turned: int = 0, threshold: float | None = THRESHOLD) -> bytes:
    """Return the file of a head; `turned` moves the weight of each answer to so many labels further."""
    found = trained()
    moved = tuple(category[-turned:] + category[:-turned] for category in found.categories)
    return artifact.write(replace(found, categories=moved), threshold=threshold, about={})


def named(key: str, content: bytes) -> HeadFile:
    """Return what a route says of a file."""
    return HeadFile(key, hashlib.sha256(content).hexdigest())


def store_of(*contents: bytes) -> tuple[ObjectStore, list[HeadFile]]:
    """Return a store with these files, and their names."""
    files = [named(f"releases/search/{place}-1/head.bin", content) for place, content in enumerate(contents)]
    return ObjectStore({file.key: content for file, content in zip(files, contents, strict=True)}), files


def settle() -> None:
    """Wait until nothing is being loaded."""
    for thread in threading.enumerate():
        if thread.name == "heads":
            thread.join(60)
            assert not thread.is_alive()
