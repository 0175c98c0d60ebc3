"""The settings of the gate, as the construct writes them and ScoreAndGate reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# Share of the hold-out questions that the candidate, and with `not_worse` the live release too, must have
# been asked. With fewer, the scores could miss what they are to find.
MINIMUM_ASKED = 0.95
# Smaller differences of latency are ignored, whatever the ratio: two endpoints of one model differ by as much
# from hour to hour.
IGNORED_LATENCY_MS = 50.0


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The settings of a gate. A check whose limit is None is skipped.

    Attributes:
        minimum_examples: hold-out examples that must be scored for the scores to count.
        minimum_balanced_accuracy: mean of the labels' accuracies. It must be above chance also without it.
        minimum_worst_label_accuracy: accuracy of the label with the lowest one.
        minimum_slice_accuracy: dominant-label accuracy by robustness slice.
        not_worse: whether the candidate is compared with the live release, and with the best one before.
        non_inferiority_margin: by how much the candidate may be worse than these in valid output and in
            dominant-label accuracy.
        error_margin: by how much it may be worse in mean absolute error.
        latency_margin: by how much the candidate may be slower or cost more than the live release, as a part
            of its median latency and of its cost.
    """

    minimum_valid_output: float
    minimum_dominant_accuracy: float
    maximum_mean_absolute_error: float
    minimum_examples: int
    minimum_balanced_accuracy: float | None = None
    minimum_worst_label_accuracy: float | None = None
    minimum_slice_accuracy: Mapping[str, float] | None = None
    maximum_latency_p95_ms: float | None = None
    maximum_cost_per_1000_usd: float | None = None
    minimum_judge_score: float | None = None
    not_worse: bool = True
    non_inferiority_margin: float = 0.05
    error_margin: float = 0.02
    latency_margin: float = 0.25

    def minimum_asked(self, questions: int) -> int:
        """Return how many of the hold-out questions must have been asked for a decision."""
        return max(math.ceil(questions * MINIMUM_ASKED), min(questions, self.minimum_examples))
