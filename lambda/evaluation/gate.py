"""The gate: decide by thresholds and by comparison with the live release whether a candidate passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from distilled_router.release.gate import IGNORED_LATENCY_MS, Gate
from evaluation.grades import Grades
from evaluation.intervals import UNKNOWN, Estimate
from evaluation.metrics import METRICS
from evaluation.unasked import Unasked

# Compared with the live release by paired differences.
PAIRED = ("valid_output", "dominant_accuracy", "mean_absolute_error")
# Compared with the live release by the ratio of their confidence intervals' bounds.
BY_RATIO = ("latency_p50_ms", "cost_per_1000_usd")

type Limit = Literal["least", "most"]
LEAST: Limit = "least"
MOST: Limit = "most"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule of the gate.

    Attributes:
        name: the metric in words.
        found: the candidate's value, or its difference to the live release.
        low, high: bounds of the confidence interval.
        limit: the limit for the value or the interval.
        limit_is: whether the limit is the `least` or the `most` allowed.
        ok: whether the check passes.
        against: `threshold`, or `live` for a comparison with the live release.
        reason: why the check fails; empty if it passes.
        is_known: whether what is checked is known. If not, a failed check is no judgement of the candidate.
    """

    name: str
    found: float
    low: float
    high: float
    limit: float
    limit_is: Limit
    ok: bool
    against: str
    reason: str = ""
    is_known: bool = True


def asked(gate: Gate, candidate: Unasked, both: Unasked | None) -> list[Check]:
    """Return the checks that enough hold-out questions could be asked for a decision.

    Args:
        gate: the gate's settings.
        candidate: what the candidate could not be asked.
        both: what the candidate or the live release could not be asked; None if there is no live release.
    """
    found = [("the candidate", "examples asked", candidate, "threshold")]
    if both is not None and gate.not_worse:
        found.append(("the candidate and the live release", "examples that both were asked", both, "live"))
    return [_asked(gate, *one) for one in found]


def _asked(gate: Gate, who: str, name: str, found: Unasked, against: str) -> Check:
    least = gate.minimum_asked(found.questions)
    count = _count(found.asked)
    reason = (
        f"{who} could be asked {found.asked} of {found.questions} hold-out questions, at least {least} are "
        f"needed: {found.why}"
    )
    ok = found.asked >= least
    check = _check(name, count, least, LEAST, ok=ok, against=against, reason=reason)
    return replace(check, is_known=ok)


def checks(
    gate: Gate,
    candidate: Mapping[str, Estimate],
    live: Mapping[str, Estimate] | None,
    differences: Mapping[str, Estimate],
    questions: int,
    grades: Grades | None = None,
) -> list[Check]:
    """Return all checks of the gate.

    A threshold is compared with the value. A comparison with the live release fails only if the whole
    confidence interval of the difference is beyond the non-inferiority margin, since with few questions a
    difference may be chance.

    Args:
        gate: the gate's settings.
        candidate: its scores by metric.
        live: the live release's scores; None if there is none.
        differences: paired differences, candidate minus live, of the PAIRED metrics.
        questions: the number of hold-out questions.
        grades: the judge's grades; None without a judge.
    """
    return [
        *_thresholds(gate, candidate, questions),
        *([_judge_score(grades, gate.minimum_judge_score)] if gate.minimum_judge_score is not None else []),
        *(_beside(gate, candidate, live, differences) if live is not None and gate.not_worse else []),
    ]


def _thresholds(gate: Gate, candidate: Mapping[str, Estimate], questions: int) -> Iterator[Check]:
    yield _threshold("examples", _count(questions), least=gate.minimum_examples)
    yield _threshold("valid_output", candidate["valid_output"], least=gate.minimum_valid_output)
    accuracy = candidate["dominant_accuracy"]
    yield _threshold("dominant_accuracy", accuracy, least=gate.minimum_dominant_accuracy)
    error = candidate["mean_absolute_error"]
    yield _threshold("mean_absolute_error", error, most=gate.maximum_mean_absolute_error)
    for name, limit in (
        ("latency_p95_ms", gate.maximum_latency_p95_ms),
        ("cost_per_1000_usd", gate.maximum_cost_per_1000_usd),
    ):
        if limit is not None:
            yield _threshold(name, candidate[name], most=limit)


def _beside(
    gate: Gate,
    candidate: Mapping[str, Estimate],
    live: Mapping[str, Estimate],
    differences: Mapping[str, Estimate],
) -> Iterator[Check]:
    margin = gate.non_inferiority_margin
    for name in PAIRED:
        found = differences.get(name, UNKNOWN)
        if not found.is_known:
            continue  # the threshold check fails for a metric without a value
        higher = METRICS[name].better == "higher"
        worst = found.high < -margin if higher else found.low > margin
        limit = -margin if higher else margin
        least, most = sorted((abs(found.low), abs(found.high)))
        text = (
            f"{_words(name)} is {abs(found.value):.3g} worse than the live release's (95 % interval "
            f"{least:.3g} to {most:.3g}, allowed {margin:.3g})"
        )
        yield _check(name, found, limit, LEAST if higher else MOST, ok=not worst, against="live", reason=text)
    for name in BY_RATIO:
        mine, theirs = candidate[name], live[name]
        if not (mine.is_known and theirs.is_known):
            continue
        limit = theirs.high * (1 + gate.latency_margin)
        worst = mine.low > limit
        if name.endswith("_ms"):
            worst = worst and mine.low - theirs.high > IGNORED_LATENCY_MS
        text = (
            f"{_words(name)} is {mine.value:.3g}, and the live release's is {theirs.value:.3g} (allowed "
            f"{1 + gate.latency_margin:.3g} times its upper bound, {limit:.3g})"
        )
        yield _check(name, mine, limit, MOST, ok=not worst, against="live", reason=text)


def _threshold(name: str, found: Estimate, *, least: float | None = None, most: float | None = None) -> Check:
    limit = least if least is not None else most
    assert limit is not None
    # NaN compares false, so that a mean over no rows fails.
    ok = found.value >= limit if least is not None else found.value <= limit
    text = f"{_words(name)} is {_shown(found)}, threshold {limit:.3g}"
    kind = LEAST if least is not None else MOST
    return _check(name, found, limit, kind, ok=ok, against="threshold", reason=text)


def _judge_score(given: Grades | None, least: float) -> Check:
    grades = given or Grades(judge="", problem="none is set")
    score = grades.score
    text = f"judge score is {_shown(score)}, threshold {least:.3g}"
    if not score.is_known:
        text = f"the judge gave no score, threshold {least:.3g}: {grades.problem}"
    check = _check(
        "judge_score", score, least, LEAST, ok=score.value >= least, against="threshold", reason=text
    )
    return replace(check, is_known=score.is_known)


def _check(
    name: str, found: Estimate, limit: float, limit_is: Limit, *, ok: bool, against: str, reason: str
) -> Check:
    return Check(
        name=_words(name),
        found=found.value,
        low=found.low,
        high=found.high,
        limit=limit,
        limit_is=limit_is,
        ok=ok,
        against=against,
        reason="" if ok else reason,
    )


def _count(number: int) -> Estimate:
    return Estimate(float(number), float(number), float(number), number)


def _shown(found: Estimate) -> str:
    return f"{found.value:.3g}" if found.is_known else "unknown"


def _words(name: str) -> str:
    """Return a metric's name in words."""
    return {
        "dominant_accuracy": "dominant-label accuracy",
        "latency_p50_ms": "median latency (ms)",
        "latency_p95_ms": "latency at p95 (ms)",
        "cost_per_1000_usd": "cost of 1,000 queries (USD)",
    }.get(name, name.replace("_", " "))
