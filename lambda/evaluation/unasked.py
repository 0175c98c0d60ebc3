"""Questions that a contender could not be asked. They are no wrong answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.metrics import Answer


@dataclass(frozen=True)
class Unasked:
    """How many of `questions` a contender could not be asked, and why.

    Attributes:
        reasons: number of questions by reason, the most frequent first.
        problem: the first error's text.
    """

    questions: int
    reasons: Mapping[str, int]
    problem: str = ""

    @classmethod
    def among(cls, answers: Iterable[Answer]) -> Unasked:
        """Count the questions without an answer because the call failed."""
        listed = list(answers)
        failed = [answer for answer in listed if not answer.was_asked]
        reasons = Counter(answer.unavailable for answer in failed)
        return cls(len(listed), dict(reasons.most_common()), failed[0].problem if failed else "")

    @property
    def count(self) -> int:
        """Return how many questions could not be asked."""
        return sum(self.reasons.values())

    @property
    def asked(self) -> int:
        """Return how many questions could be asked."""
        return self.questions - self.count

    @property
    def why(self) -> str:
        """Return the reasons in words, e.g. "20 throttled (ThrottlingException: Too many requests)"."""
        counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self.reasons.items())
        return f"{counts} ({self.problem})" if self.problem else counts

    def document(self) -> dict[str, Any]:
        """Return the report's part on these questions."""
        return {"questions": self.questions, "count": self.count, "why": self.why}
