"""Whether a candidate is good enough: by thresholds, and beside what serves now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from evaluation.grades import Grades
from evaluation.intervals import UNKNOWN, Estimate
from evaluation.metrics import METRICS

# Compared with what serves by the differences on the same questions.
PAIRED = ("valid_output", "dominant_accuracy", "mean_absolute_error")
# Compared by their intervals: a ratio, since they have no scale of their own.
BY_RATIO = ("latency_p50_ms", "cost_per_1000_usd")
# Less is no matter, whatever the ratio: two endpoints of one model differ by as much from hour to hour.
LEAST_SLOWER_MS = 50.0

type Limit = Literal["least", "most"]
LEAST: Limit = "least"
MOST: Limit = "most"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison of the gate: what was found, with its interval, and the limit.

    `limit_is` says whether that is the least or the most that is allowed, `against` whether it is a
    `threshold` or comes from what is `serving`; `reason` says it all in words where it is not `ok`.
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


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The settings of their names. Those that are None limit nothing."""

    minimum_valid_output: float
    minimum_dominant_accuracy: float
    maximum_mean_absolute_error: float
    minimum_examples: int
    maximum_latency_p95_ms: float | None = None
    maximum_cost_per_1000_usd: float | None = None
    minimum_judge_score: float | None = None
    not_worse: bool = True
    worse_by: float = 0.02
    slower_by: float = 0.25

    def checks(
        self,
        candidate: Mapping[str, Estimate],
        serving: Mapping[str, Estimate] | None,
        differences: Mapping[str, Estimate],
        questions: int,
        grades: Grades | None = None,
    ) -> list[Check]:
        """All comparisons.

        A threshold is held against the value itself. What serves now is better only where the whole interval
        of the difference says so: with few questions, a worse value is often nothing but luck.

        Args:
            candidate, serving: their scores by metric; None where nothing serves yet.
            differences: candidate less serving on the same questions, of the PAIRED metrics.
            questions: how many of the hold-out set there were.
            grades: those of a judge model, where one is set.
        """
        count = Estimate(float(questions), float(questions), float(questions), questions)
        found = [
            _threshold("examples", count, least=self.minimum_examples),
            _threshold("valid_output", candidate["valid_output"], least=self.minimum_valid_output),
            _threshold(
                "dominant_accuracy", candidate["dominant_accuracy"], least=self.minimum_dominant_accuracy
            ),
            _threshold(
                "mean_absolute_error", candidate["mean_absolute_error"], most=self.maximum_mean_absolute_error
            ),
        ]
        if self.maximum_latency_p95_ms is not None:
            found.append(
                _threshold("latency_p95_ms", candidate["latency_p95_ms"], most=self.maximum_latency_p95_ms)
            )
        if self.maximum_cost_per_1000_usd is not None:
            limit = self.maximum_cost_per_1000_usd
            found.append(_threshold("cost_per_1000_usd", candidate["cost_per_1000_usd"], most=limit))
        if self.minimum_judge_score is not None:
            found.append(_judged(grades or Grades(judge="", problem="none is set"), self.minimum_judge_score))
        if serving is not None and self.not_worse:
            found += self._beside(candidate, serving, differences)
        return found

    def _beside(
        self,
        candidate: Mapping[str, Estimate],
        serving: Mapping[str, Estimate],
        differences: Mapping[str, Estimate],
    ) -> Iterator[Check]:
        for name in PAIRED:
            found = differences.get(name, UNKNOWN)
            if not found.is_known:
                continue  # a threshold refuses what has no value
            higher = METRICS[name].better == "higher"
            worst = found.high < -self.worse_by if higher else found.low > self.worse_by
            limit = -self.worse_by if higher else self.worse_by
            least, most = sorted((abs(found.low), abs(found.high)))
            text = (
                f"{_words(name)} is {abs(found.value):.3g} worse than what serves now (95 % interval "
                f"{least:.3g} to {most:.3g}, allowed {self.worse_by:.3g})"
            )
            kind = LEAST if higher else MOST
            yield _check(name, found, limit, kind, ok=not worst, against="serving", reason=text)
        for name in BY_RATIO:
            mine, theirs = candidate[name], serving[name]
            if not (mine.is_known and theirs.is_known):
                continue
            limit = theirs.high * (1 + self.slower_by)
            worst = mine.low > limit
            if name.endswith("_ms"):
                worst = worst and mine.low - theirs.high > LEAST_SLOWER_MS
            text = (
                f"{_words(name)} is {mine.value:.3g}, and {theirs.value:.3g} of what serves now (allowed "
                f"{1 + self.slower_by:.3g} times its upper bound, {limit:.3g})"
            )
            yield _check(name, mine, limit, MOST, ok=not worst, against="serving", reason=text)


def _threshold(name: str, found: Estimate, *, least: float | None = None, most: float | None = None) -> Check:
    limit = least if least is not None else most
    assert limit is not None
    # NaN compares false with everything, so that a mean over nothing never passes.
    ok = found.value >= limit if least is not None else found.value <= limit
    text = f"{_words(name)} is {found.value:.3g}, threshold {limit:.3g}"
    kind = LEAST if least is not None else MOST
    return _check(name, found, limit, kind, ok=ok, against="threshold", reason=text)


def _judged(grades: Grades, least: float) -> Check:
    score = grades.score
    text = f"judge score is {score.value:.3g}, threshold {least:.3g}"
    if not score.is_known:
        text = f"the judge gave no score, threshold {least:.3g}: {grades.problem}"
    ok = score.value >= least
    return _check("judge_score", score, least, LEAST, ok=ok, against="threshold", reason=text)


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


def _words(name: str) -> str:
    """A metric's name in the words of a sentence."""
    return {
        "dominant_accuracy": "dominant-label accuracy",
        "latency_p50_ms": "median latency (ms)",
        "latency_p95_ms": "latency at p95 (ms)",
        "cost_per_1000_usd": "cost of 1,000 queries (USD)",
    }.get(name, name.replace("_", " "))
