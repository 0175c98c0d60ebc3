"""The route and the models that most tests of the router start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.routes import Route, Share
from tests.unit.router.conftest import Bench
from tests.unit.router.doubles import BASE_MODEL, BedrockDouble

MakeBench = Callable[..., Bench]

STUDENT = "arn:student"
CANDIDATE = "arn:candidate"
SETTLED = Route(3, (Share("aaaaaaaaaaaa", STUDENT, 1.0),))
STUDENT_SAYS, BASE_SAYS = "10 80 0 10", '{"visual": 0.7, "audio": 0.1, "transcription": 0.1, "metadata": 0.1}'


def healthy(**says: Any) -> BedrockDouble:
    """Both models answer, but for what is said otherwise."""
    return BedrockDouble(**{STUDENT: STUDENT_SAYS, CANDIDATE: "0 0 100 0", BASE_MODEL: BASE_SAYS, **says})


def student(says: Any) -> BedrockDouble:
    """The student does this, the base model answers."""
    return healthy(**{STUDENT: says})
