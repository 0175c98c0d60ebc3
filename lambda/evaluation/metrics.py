"""Metrics of one answer, computed from its weights without a judge.

An invalid answer counts as wrong in metrics of shares. It has no weights, so the mean errors leave it out;
the gate therefore also checks the share of valid output. A question that could not be asked counts nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from distilled_router.task.task import Task
from evaluation.label_groups import LABEL_ROWS

# A metric over all rows, not of one answer.
BALANCED = "balanced_accuracy"
# Weights are equal if they differ by less: references have whole percents.
SAME = 0.005
NEAR = 1e-9
# Added to each weight before the KL divergence, which a zero would make infinite.
SMOOTHING = 0.005


@dataclass(frozen=True, slots=True)
class Question:
    """One query of an evaluation.

    `reference` is None if the right weights are unknown. `variant_of` is the id of the original question of a
    variant, otherwise empty. Questions of one `family` are much alike; -1 is none, a question of its own.
    `count` is how often the query was asked.
    """

    id: str
    slice: str
    query: str
    reference: Mapping[str, float] | None
    variant_of: str = ""
    family: int = -1
    count: float = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A contender's answer to a question.

    `weights` is None if the output did not parse or the call failed; `problem` says why. `latency_ms` is 0 if
    the call failed or the latency is unknown; tokens are 0 also if Bedrock reported no usage. `unavailable`
    is the reason if the question could not be asked, e.g. `throttled`; otherwise it is empty.
    """

    id: str
    weights: Mapping[str, float] | None
    problem: str = ""
    latency_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    unavailable: str = ""

    @property
    def was_asked(self) -> bool:
        """Return whether the question could be asked. If Bedrock refused it, it could."""
        return not self.unavailable

    @property
    def was_given(self) -> bool:
        """Return whether a model answered, even with invalid output, and its latency is known."""
        return self.latency_ms > 0


@dataclass(frozen=True)
class Metric:
    """A metric's description.

    Attributes:
        title: for the report.
        unit: `share`, `weight`, `nats`, `points`, `ms`, `tokens` or `usd`.
        better: whether higher or lower values are better.
        meaning: for the report.
        needs_reference: whether questions without a reference have no value.
    """

    title: str
    unit: str
    better: Literal["higher", "lower"]
    meaning: str
    needs_reference: bool = True


METRICS: Mapping[str, Metric] = {
    "valid_output": Metric(
        "Valid output", "share", "higher", "answers with a weight for every label", needs_reference=False
    ),
    "exact_match": Metric("Exact match", "share", "higher", "answers that equal the reference"),
    "within_0_05": Metric("Within 0.05", "share", "higher", "answers with all weights within 0.05"),
    "within_0_10": Metric("Within 0.10", "share", "higher", "answers with all weights within 0.10"),
    "dominant_accuracy": Metric(
        "Dominant label",
        "share",
        "higher",
        "answers with the reference's dominant label, or one of its tied labels",
    ),
    "mean_absolute_error": Metric(
        "Mean absolute error",
        "weight",
        "lower",
        "mean difference between a weight and the reference's, over valid answers",
    ),
    "kl_divergence": Metric(
        "KL divergence",
        "nats",
        "lower",
        "from answer to reference, over valid answers, with weights smoothed by 0.005",
    ),
    "rubric": Metric("Rubric", "points", "higher", "1 to 5 by the published rubric, from weights alone"),
    "input_tokens": Metric("Input tokens", "tokens", "lower", "per question", needs_reference=False),
    "output_tokens": Metric("Output tokens", "tokens", "lower", "per answer", needs_reference=False),
    "cost_per_1000_usd": Metric(
        "Cost of 1,000 queries",
        "usd",
        "lower",
        "US dollars for input and output tokens",
        needs_reference=False,
    ),
}

_BALANCED = Metric(
    "Balanced accuracy",
    "share",
    "higher",
    f"mean of the dominant label's accuracy by label; those with fewer than {LABEL_ROWS} queries are one",
)

LATENCIES: Mapping[str, float] = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
"""Latency metrics, and their quantiles."""


def shown() -> dict[str, dict[str, str]]:
    """Return the report's description of each metric, by name."""
    found: dict[str, dict[str, str]] = {}
    for name, metric in METRICS.items():
        found[name] = _shown(metric)
        if name == "dominant_accuracy":
            found[BALANCED] = _shown(_BALANCED)
    for name, part in LATENCIES.items():
        meaning = f"time within which {part:.0%} of the answers arrived"
        found[name] = {
            "title": f"Latency p{part * 100:.0f}",
            "unit": "ms",
            "better": "lower",
            "meaning": meaning,
        }
    meaning = "variants with all weights within 0.10 of those for the original query"
    found["consistency"] = {"title": "Consistency", "unit": "share", "better": "higher", "meaning": meaning}
    return found


def _shown(metric: Metric) -> dict[str, str]:
    return {name: getattr(metric, name) for name in ("title", "unit", "better", "meaning")}


def rubric(reference: Mapping[str, float], weights: Mapping[str, float] | None, task: Task) -> int:
    """Return 1 to 5 points by the rubric of the published evaluation, without its part on reasoning.

    5: every weight is within 0.05 of the reference. 4: within 0.10. 1: there are no weights, or one differs
    by more than 0.30. 3: the dominant label is right, and the mean error is below 0.15. 2: all other answers.
    """
    if weights is None:
        return 1
    errors = distances(reference, weights)
    if max(errors) <= 0.05 + NEAR:
        return 5
    if max(errors) <= 0.10 + NEAR:
        return 4
    if max(errors) > 0.30 + NEAR:
        return 1
    is_right = task.is_dominant_right(reference, weights)
    return 3 if is_right and math.fsum(errors) / len(errors) < 0.15 - NEAR else 2


def divergence(reference: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the smoothed Kullback-Leibler divergence from the answer to the reference, in nats."""
    whole = 1 + SMOOTHING * len(reference)
    total = 0.0
    for label, weight in reference.items():
        wanted, found = (weight + SMOOTHING) / whole, (weights[label] + SMOOTHING) / whole
        total += wanted * math.log(wanted / found)
    return max(total, 0.0)


def distances(reference: Mapping[str, float], weights: Mapping[str, float]) -> list[float]:
    """Return the absolute difference of each weight to the reference's."""
    return [abs(weights[label] - weight) for label, weight in reference.items()]


def values(
    question: Question, answer: Answer, task: Task, cost: Callable[[Answer], float | None]
) -> dict[str, float | None]:
    """Return an answer's value of every metric, or None. `cost` returns an answer's cost in US dollars."""
    reference, weights = question.reference, answer.weights
    has_usage = answer.input_tokens > 0
    usd = cost(answer) if has_usage else None
    found: dict[str, float | None] = dict.fromkeys(METRICS)
    if not answer.was_asked:
        return found
    found["valid_output"] = float(weights is not None)
    if has_usage:
        found["input_tokens"] = float(answer.input_tokens)
        found["output_tokens"] = float(answer.output_tokens)
    if usd is not None:
        found["cost_per_1000_usd"] = usd * 1_000
    if reference is None:
        return found
    found["rubric"] = float(rubric(reference, weights, task))
    if weights is None:
        return found | dict.fromkeys(("exact_match", "within_0_05", "within_0_10", "dominant_accuracy"), 0.0)
    errors = distances(reference, weights)
    return found | {
        "exact_match": float(max(errors) < SAME),
        "within_0_05": float(max(errors) <= 0.05 + NEAR),
        "within_0_10": float(max(errors) <= 0.10 + NEAR),
        "dominant_accuracy": float(task.is_dominant_right(reference, weights)),
        "mean_absolute_error": math.fsum(errors) / len(errors),
        "kl_divergence": divergence(reference, weights),
    }
