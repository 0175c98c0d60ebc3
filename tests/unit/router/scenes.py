"""The route and models that most tests of the router start with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from distilled_router.release.route import Route, Share
from distilled_router.task.task import Task
from tests.unit.router.conftest import Bench
from tests.unit.router.doubles import BASE_MODEL, BedrockDouble

MakeBench = Callable[..., Bench]

STUDENT = "arn:student"
CANDIDATE = "arn:candidate"
LIVE_ROUTE = Route(3, (Share("aaaaaaaaaaaa", STUDENT, 1.0),))
STUDENT_SAYS, BASE_SAYS = "10 80 0 10", '{"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1}'


def healthy(**says: Any) -> BedrockDouble:
    """Return replies of both models, with these exceptions."""
    return BedrockDouble(**{STUDENT: STUDENT_SAYS, CANDIDATE: "0 0 100 0", BASE_MODEL: BASE_SAYS, **says})


def student(says: Any) -> BedrockDouble:
    """Return replies in which the student does this and the base model answers."""
    return healthy(**{STUDENT: says})


def assert_weights(answer: Mapping[str, Any], task: Task) -> None:
    """Check that an answer has weights: all labels in order, finite, from 0 to 1, with sum 1, and the
    dominant label."""
    weights = answer["weights"]
    assert tuple(weights) == task.labels
    assert all(type(weight) in (int, float) and 0 <= weight <= 1 for weight in weights.values()), weights
    assert math.isclose(math.fsum(weights.values()), 1, abs_tol=1e-9), weights
    assert answer["intent"] == task.dominant(weights)
