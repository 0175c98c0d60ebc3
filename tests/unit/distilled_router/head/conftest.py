"""A small trained head, and the rows that it was trained on."""

from __future__ import annotations

import pytest

from distilled_router.head import artifact
from distilled_router.head.training import Training
from distilled_router.task.task import Task
from tests.unit.distilled_router.head.scenes import NEGATIVES, rows, trained


@pytest.fixture(scope="session")
def task() -> Task:
    return Task.load()


@pytest.fixture(scope="session")
def small(task: Task) -> artifact.Trained:
    """Return a head of few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distilled_router.head.training._LEAST_VISITS", 4_000)
        patch.setattr("distilled_router.head.training._LEAST_VISITS_OF_TRIAL", 500)
        return trained(Training.start(rows(task), NEGATIVES, task))


@pytest.fixture(scope="session")
def content(small: artifact.Trained) -> bytes:
    """Return the file of a head with the threshold 0.03."""
    return artifact.write(small, threshold=0.03, about={"release": "0123456789ab"})
