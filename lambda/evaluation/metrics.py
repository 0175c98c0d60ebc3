"""What one answer is worth, by each metric; on weights alone, so that no judge is needed.

An answer that is not valid counts as wrong wherever right and wrong are counted. It has no weights, and so no
part in the mean errors: that is why the gate asks for a valid output rate besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from distilled_router.task.task import Task

# Weights of references lie on whole percents at best; below half a percent two are the same.
SAME = 0.005
NEAR = 1e-9
# What is added to each weight before the divergence: else a single zero makes it infinite.
SMOOTHING = 0.005


@dataclass(frozen=True, slots=True)
class Question:
    """One query to ask. `reference` is None where nobody knows the right weights. `variant_of` is the id of
    the question that it says in other words, or empty."""

    id: str
    slice: str
    query: str
    reference: Mapping[str, float] | None
    variant_of: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was made of a question. `weights` is None where the output did not parse or the call failed;
    `problem` then says why. Latency is 0 where the call failed, tokens also where Bedrock told no usage."""

    id: str
    weights: Mapping[str, float] | None
    problem: str = ""
    latency_ms: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def was_given(self) -> bool:
        """Whether a model wrote something, valid or not."""
        return self.latency_ms > 0


@dataclass(frozen=True)
class Metric:
    """`unit` is `share`, `weight`, `nats`, `points`, `ms`, `tokens` or `usd`. `better` says whether higher or
    lower values are. `needs_reference`: questions without one have no value."""

    title: str
    unit: str
    better: Literal["higher", "lower"]
    meaning: str
    needs_reference: bool = True


METRICS: Mapping[str, Metric] = {
    "valid_output": Metric(
        "Valid output", "share", "higher", "answers that parse and weigh every label", needs_reference=False
    ),
    "exact_match": Metric("Exact match", "share", "higher", "answers that equal the reference"),
    "within_0_05": Metric("Within 0.05", "share", "higher", "answers with no weight further off than 0.05"),
    "within_0_10": Metric("Within 0.10", "share", "higher", "answers with no weight further off than 0.10"),
    "dominant_accuracy": Metric(
        "Dominant label",
        "share",
        "higher",
        "answers whose largest weight is the reference's, or one of those tied",
    ),
    "mean_absolute_error": Metric(
        "Mean absolute error",
        "weight",
        "lower",
        "distance of a weight from the reference's, of valid answers",
    ),
    "kl_divergence": Metric(
        "KL divergence",
        "nats",
        "lower",
        "of the reference from the answer, of valid answers, each smoothed by 0.005",
    ),
    "rubric": Metric("Rubric", "points", "higher", "1 to 5: the published rubric, on weights alone"),
    "input_tokens": Metric("Input tokens", "tokens", "lower", "of a question", needs_reference=False),
    "output_tokens": Metric("Output tokens", "tokens", "lower", "of an answer", needs_reference=False),
    "cost_per_1000_usd": Metric(
        "Cost of 1,000",
        "usd",
        "lower",
        "US dollars for the tokens of 1,000 questions and answers",
        needs_reference=False,
    ),
}

LATENCIES: Mapping[str, float] = {"latency_p50_ms": 0.50, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
"""Names of the latencies' quantiles, and which part of the answers is as fast or faster."""


def shown() -> dict[str, dict[str, str]]:
    """What each score of a report is, by its name."""
    found = {
        name: {"title": metric.title, "unit": metric.unit, "better": metric.better, "meaning": metric.meaning}
        for name, metric in METRICS.items()
    }
    for name, part in LATENCIES.items():
        meaning = f"{part:.0%} of the answers came within so many milliseconds"
        found[name] = {
            "title": f"Latency p{part * 100:.0f}",
            "unit": "ms",
            "better": "lower",
            "meaning": meaning,
        }
    meaning = "variants that got the weights of their original, none more than 0.10 off"
    found["consistency"] = {"title": "Consistency", "unit": "share", "better": "higher", "meaning": meaning}
    return found


def rubric(reference: Mapping[str, float], weights: Mapping[str, float] | None, task: Task) -> int:
    """The 5-point rubric of the published evaluation without its part on reasoning.

    5: every weight within 0.05 of the reference. 4: within 0.10. 1: no weights, or one of them more than 0.30
    off. 3: the dominant label is right, and the mean error below 0.15. 2: the rest.
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
    is_right = is_dominant_right(reference, weights, task)
    return 3 if is_right and math.fsum(errors) / len(errors) < 0.15 - NEAR else 2


def is_dominant_right(reference: Mapping[str, float], weights: Mapping[str, float], task: Task) -> bool:
    """Whether the largest weight is of the reference's label; of labels that are tied there any will do."""
    return task.dominant(dict(weights)) in task.dominants(dict(reference))


def divergence(reference: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Kullback-Leibler divergence of the reference from the answer, in nats; both are smoothed."""
    whole = 1 + SMOOTHING * len(reference)
    total = 0.0
    for label, weight in reference.items():
        wanted, found = (weight + SMOOTHING) / whole, (weights[label] + SMOOTHING) / whole
        total += wanted * math.log(wanted / found)
    return max(total, 0.0)


def distances(reference: Mapping[str, float], weights: Mapping[str, float]) -> list[float]:
    """How far each weight is from the reference's, label by label."""
    return [abs(weights[label] - weight) for label, weight in reference.items()]


def values(
    question: Question, answer: Answer, task: Task, cost: Callable[[Answer], float | None]
) -> dict[str, float | None]:
    """One answer's value by every metric; None where it has none. `cost` is in US dollars, of an answer."""
    reference, weights = question.reference, answer.weights
    has_usage = answer.input_tokens > 0
    usd = cost(answer) if has_usage else None
    found: dict[str, float | None] = dict.fromkeys(METRICS)
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
        "dominant_accuracy": float(is_dominant_right(reference, weights, task)),
        "mean_absolute_error": math.fsum(errors) / len(errors),
        "kl_divergence": divergence(reference, weights),
    }
