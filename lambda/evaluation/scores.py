"""How good a set of answers is, on weights alone, and whether that is good enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shared.task import Task


@dataclass(frozen=True)
class Answer:
    """One hold-out query's reference, and what the candidate made of it. `weights` is None where the
    output did not parse or the call failed; `problem` then says why."""

    query: str
    reference: Mapping[str, float]
    weights: Mapping[str, float] | None
    problem: str = ""
    latency_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Scores:
    """Rates are shares of all examples, 0 to 1; an answer that is not valid counts as wrong in each.

    The mean absolute error is over labels and valid answers only, since an invalid answer has no weights;
    that is why the gate asks for a valid output rate besides.
    """

    examples: int
    valid_output: float
    dominant_accuracy: float
    within_0_05: float
    within_0_10: float
    mean_absolute_error: float
    latency_p50_ms: float
    latency_p95_ms: float
    input_tokens: float
    output_tokens: float


@dataclass(frozen=True)
class Gate:
    """The thresholds of the settings."""

    minimum_valid_output: float
    minimum_dominant_accuracy: float
    maximum_mean_absolute_error: float
    minimum_examples: int

    def reasons_against(self, scores: Scores) -> list[str]:
        """Each threshold that is missed, in words; empty where the candidate may be promoted."""
        checks = (
            (scores.examples >= self.minimum_examples, "examples", scores.examples, self.minimum_examples),
            (
                scores.valid_output >= self.minimum_valid_output,
                "valid output",
                scores.valid_output,
                self.minimum_valid_output,
            ),
            (
                scores.dominant_accuracy >= self.minimum_dominant_accuracy,
                "dominant-label accuracy",
                scores.dominant_accuracy,
                self.minimum_dominant_accuracy,
            ),
            (
                scores.mean_absolute_error <= self.maximum_mean_absolute_error,
                "mean absolute error",
                scores.mean_absolute_error,
                self.maximum_mean_absolute_error,
            ),
        )
        # NaN compares false with everything, so a mean over nothing is a reason, never a pass.
        return [
            f"{name} is {found:.3g}, threshold {limit:.3g}" for ok, name, found, limit in checks if not ok
        ]


def score(answers: Sequence[Answer], task: Task) -> Scores:
    """Summarise the answers. A reference with tied largest weights is met by any of them."""
    valid = [answer for answer in answers if answer.weights is not None]
    count = max(len(answers), 1)
    errors = [_errors(answer, task) for answer in valid]
    right = sum(task.dominant(_weights(answer)) in task.dominants(dict(answer.reference)) for answer in valid)
    latencies = sorted(answer.latency_ms for answer in valid)
    return Scores(
        examples=len(answers),
        valid_output=len(valid) / count,
        dominant_accuracy=right / count,
        within_0_05=sum(max(row) <= 0.05 + 1e-9 for row in errors) / count,
        within_0_10=sum(max(row) <= 0.10 + 1e-9 for row in errors) / count,
        mean_absolute_error=_mean([error for row in errors for error in row]),
        latency_p50_ms=_percentile(latencies, 0.50),
        latency_p95_ms=_percentile(latencies, 0.95),
        input_tokens=_mean([answer.input_tokens for answer in valid]),
        output_tokens=_mean([answer.output_tokens for answer in valid]),
    )


def report(
    scores: Scores, gate: Gate, answers: Sequence[Answer], *, digest: str, model_arn: str, worst: int = 20
) -> dict[str, Any]:
    """The evaluation as it is kept in S3: verdict first."""
    reasons = gate.reasons_against(scores)
    ranked = sorted(answers, key=_badness, reverse=True)[:worst]
    return {
        "release": digest,
        "model": model_arn,
        "passed": not reasons,
        "reasons": reasons,
        "scores": {
            k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(scores).items()
        },
        "gate": asdict(gate),
        "worst": [asdict(answer) for answer in ranked],
    }


def _weights(answer: Answer) -> dict[str, float]:
    return dict(answer.weights or {})


def _errors(answer: Answer, task: Task) -> list[float]:
    weights = _weights(answer)
    return [abs(weights[label] - answer.reference[label]) for label in task.labels]


def _badness(answer: Answer) -> float:
    if answer.weights is None:
        return math.inf
    return max(abs(answer.weights[label] - answer.reference[label]) for label in answer.reference)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of them does not exceed."""
    return ordered[max(math.ceil(part * len(ordered)) - 1, 0)] if ordered else math.nan
