"""The gate: decide by thresholds and comparisons whether a candidate passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distilled_router.release.gate import IGNORED_LATENCY_MS, MINIMUM_ASKED, Gate
from evaluation.contenders import LIVE
from evaluation.grades import Grades
from evaluation.intervals import UNKNOWN, Estimate
from evaluation.label_groups import LABEL_ROWS
from evaluation.metrics import BALANCED, METRICS
from evaluation.parts import LABEL, SLICE, Part
from evaluation.unasked import Unasked
from evaluation.wording import figure

# Compared with the live and the best release by paired differences.
PAIRED = ("valid_output", "dominant_accuracy", "mean_absolute_error")
# Compared with the live release by the ratio of their confidence intervals' bounds.
BY_RATIO = ("latency_p50_ms", "cost_per_1000_usd")
# Compared with constant answers.
ERROR, BALANCED_ERROR = "mean_absolute_error", "balanced_error"

# How a finding says a share or a count.
_SUBJECTS = {
    "examples": "Hold-out set of {} queries",
    "valid_output": "Valid output for {}",
    "dominant_accuracy": "Dominant label right for {}",
    BALANCED: "Dominant label right for {} on average over the labels (balanced accuracy)",
}
_COUNTED = ("valid_output", "dominant_accuracy")
_BOUND = "one-sided 95 % bound"

type Limit = Literal["least", "most"]
LEAST: Limit = "least"
MOST: Limit = "most"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule of the gate.

    Attributes:
        name: the metric in words.
        found: the candidate's value, or its difference to another contender.
        low, high: bounds of the confidence interval: 95 %, or one-sided bounds of 95 % for a difference.
        limit: the limit for the value or the interval.
        limit_is: whether the limit is the `least` or the `most` allowed.
        ok: whether the check passes.
        against: `threshold`, `chance`, or the contender that the candidate is compared with.
        reason: why the check fails, in a sentence; empty if it passes.
        is_known: whether the value is known. If not, a failed check says nothing about the candidate.
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
    """Return the checks whether enough hold-out questions could be asked.

    Args:
        gate: the gate's settings.
        candidate: what the candidate could not be asked.
        both: what the candidate or the live release could not be asked; None if there is no live release.
    """
    found = [("The candidate", "examples asked", candidate, "threshold")]
    if both is not None and gate.not_worse:
        found.append(("The candidate and the live release", "examples that both were asked", both, LIVE))
    return [_asked(gate, *one) for one in found]


def _asked(gate: Gate, who: str, name: str, found: Unasked, against: str) -> Check:
    least = gate.minimum_asked(found.questions)
    count = _count(found.asked)
    reason = (
        f"{who} could be asked {found.asked} of {found.questions} hold-out questions; at least {least} "
        f"wanted: {found.why}."
    )
    ok = found.asked >= least
    check = _check(name, count, least, LEAST, ok=ok, against=against, reason=reason)
    return replace(check, is_known=ok)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A contender that the candidate is compared with.

    Attributes:
        against: its name.
        whose: its name in the text of a reason.
        differences: paired differences, candidate minus this one, with one-sided bounds of 95 %.
    """

    against: str
    whose: str
    differences: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the gate decides by.

    Attributes:
        questions: the number of hold-out questions.
        candidate: the candidate's scores by metric.
        live: the live release's scores; None if there is none.
        groups: how many groups of labels count in the balanced accuracy.
        parts: the labels and the slices, with the candidate's scores.
        releases: the releases than which the candidate may not be worse.
        constants: the constant answers than which it must be better.
        grades: the judge's grades; None without a judge.
    """

    questions: int
    candidate: Mapping[str, Estimate]
    live: Mapping[str, Estimate] | None = None
    groups: int = 0
    parts: Sequence[Part] = ()
    releases: Sequence[Comparison] = ()
    constants: Sequence[Comparison] = ()
    grades: Grades | None = None


def checks(gate: Gate, given: Evidence) -> list[Check]:
    """Return all checks of the gate.

    A threshold is compared with the value. A comparison needs proof: that the candidate is not worse than a
    release by more than the margin, and better than a constant answer.
    """
    least = gate.minimum_judge_score
    found = [*_thresholds(gate, given), *part_checks(gate, given.parts), *_above_chance(given)]
    found += [_judge_score(given.grades, least)] if least is not None else []
    found += [check for one in given.constants for check in _better(one)]
    if gate.not_worse:
        found += [check for one in given.releases for check in _not_worse(gate, one)]
        found += _by_ratio(gate, given.candidate, given.live) if given.live is not None else []
    return found


def _thresholds(gate: Gate, given: Evidence) -> Iterator[Check]:
    candidate = given.candidate
    yield _threshold("examples", _count(given.questions), least=gate.minimum_examples)
    yield _threshold("valid_output", candidate["valid_output"], least=gate.minimum_valid_output)
    accuracy = candidate["dominant_accuracy"]
    yield _threshold("dominant_accuracy", accuracy, least=gate.minimum_dominant_accuracy)
    if gate.minimum_balanced_accuracy is not None:
        yield _balanced(candidate[BALANCED], gate.minimum_balanced_accuracy)
    yield _threshold(ERROR, candidate[ERROR], most=gate.maximum_mean_absolute_error)
    for name, limit in (
        ("latency_p95_ms", gate.maximum_latency_p95_ms),
        ("cost_per_1000_usd", gate.maximum_cost_per_1000_usd),
    ):
        if limit is not None:
            yield _threshold(name, candidate[name], most=limit)


def _balanced(found: Estimate, least: float) -> Check:
    check = _threshold(BALANCED, found, least=least)
    if found.is_known:
        return check
    return replace(check, reason=_unchecked(few_labels(), "minimum_balanced_accuracy", least), is_known=False)


def few_labels() -> str:
    """Return why the balanced accuracy is unknown."""
    return f"no two labels have {LABEL_ROWS} hold-out queries each"


def part_checks(gate: Gate, parts: Sequence[Part]) -> Iterator[Check]:
    """Yield the thresholds of the worst label and of slices."""
    if (least := gate.minimum_worst_label_accuracy) is not None:
        yield _worst_label([part for part in parts if part.kind == LABEL], least)
    slices = {part.name: part for part in parts if part.kind == SLICE}
    for name, limit in sorted((gate.minimum_slice_accuracy or {}).items()):
        yield _slice(name, slices.get(name), limit)


def _worst_label(labels: Sequence[Part], least: float) -> Check:
    known = [part for part in labels if part.score.is_known]
    if not known:
        why = f"no label has {LABEL_ROWS} hold-out queries"
        text = _unchecked(why, "minimum_worst_label_accuracy", least)
        return _unknown("accuracy of the worst label", least, text)
    worst = min(known, key=lambda part: part.score.value)
    name, whose = f"accuracy of the worst label, {worst.name}", f" of {worst.name}, the worst label"
    return _threshold(name, worst.score, least=least, metric=worst.metric, whose=whose)


def _slice(name: str, part: Part | None, least: float) -> Check:
    title, asked_ = f"accuracy in the slice {name}", part.score.rows if part else 0
    if part and asked_ >= part.questions * MINIMUM_ASKED:
        return _threshold(title, part.score, least=least, metric=part.metric, whose=f" of the slice {name}")
    what = (
        f"{asked_} of {part.questions} queries could be asked" if part else "no query of the slice was asked"
    )
    setting = f"gate.minimum_slice_accuracy.{name}"
    return _unknown(title, least, f"{what[0].upper()}{what[1:]}, so {setting} {least:.3g} can't be checked.")


def _unchecked(why: str, setting: str, least: float) -> str:
    return f"{why[0].upper()}{why[1:]}, so gate.{setting} {least:.3g} can't be checked. Add queries."


def _unknown(name: str, least: float, reason: str) -> Check:
    check = _check(name, UNKNOWN, least, LEAST, ok=False, against="threshold", reason=reason)
    return replace(check, is_known=False)


def _above_chance(given: Evidence) -> Iterator[Check]:
    """Yield the check that the candidate tells labels apart, if enough labels have queries."""
    found = given.candidate[BALANCED]
    if not found.is_known:
        return
    chance = 1 / given.groups
    text = _sentence(
        f"{_SUBJECTS[BALANCED].format(figure(found.value, 'share'))}",
        f"more than the {figure(chance, 'share')} of an answer that is always the same",
        f"{figure(found.low, 'share')} possible (95 % interval: {_between(found, 'share')})",
        is_decided_by_interval=found.value > chance,
    )
    yield _check(BALANCED, found, chance, LEAST, ok=found.low > chance, against="chance", reason=text)


def _better(than: Comparison) -> Iterator[Check]:
    for name, found in than.differences.items():
        if not found.is_known:
            continue  # the threshold check fails for a metric without a value
        text = _sentence(
            f"{_capital(name)} {_change(found.value, name)} than with {than.whose}",
            "smaller",
            f"{_change(found.high, name)} possible ({_BOUND})",
            is_decided_by_interval=found.value < 0,
        )
        yield _check(name, found, 0.0, MOST, ok=found.high < 0, against=than.against, reason=text)


def _not_worse(gate: Gate, than: Comparison) -> Iterator[Check]:
    for name, found in than.differences.items():
        if not found.is_known:
            continue  # the threshold check fails for a metric without a value
        higher = METRICS[name].better == "higher"
        margin = gate.error_margin if name == ERROR else gate.non_inferiority_margin
        worst, limit = (found.low, -margin) if higher else (found.high, margin)
        change = _change(found.value, name)
        text = _sentence(
            (_SUBJECTS[name].format(f"{change} queries") if higher else f"{_capital(name)} {change}")
            + f" than with {than.whose}",
            f"at most {_change(limit, name)}",
            f"{_change(worst, name)} possible ({_BOUND})",
            is_decided_by_interval=found.value >= limit if higher else found.value <= limit,
        )
        ok = worst >= limit if higher else worst <= limit
        yield _check(name, found, limit, LEAST if higher else MOST, ok=ok, against=than.against, reason=text)


def _by_ratio(gate: Gate, candidate: Mapping[str, Estimate], live: Mapping[str, Estimate]) -> Iterator[Check]:
    """Yield the checks of latency and cost: refused only if clearly higher, since load changes them."""
    for name in BY_RATIO:
        mine, theirs, unit = candidate[name], live[name], _unit(name)
        if not (mine.is_known and theirs.is_known):
            continue
        limit = theirs.high * (1 + gate.latency_margin)
        worst = mine.low > limit
        if name.endswith("_ms"):
            worst = worst and mine.low - theirs.high > IGNORED_LATENCY_MS
        text = (
            f"{_capital(name)} {figure(mine.value, unit, suffix=True)}, and the live release's "
            f"{figure(theirs.value, unit, suffix=True)}; at most {1 + gate.latency_margin:.3g} times as much "
            f"wanted, by their 95 % intervals ({_between(mine, unit)}, and {_between(theirs, unit)})."
        )
        yield _check(name, mine, limit, MOST, ok=not worst, against=LIVE, reason=text)


def _threshold(
    name: str,
    found: Estimate,
    *,
    least: float | None = None,
    most: float | None = None,
    metric: str = "",
    whose: str = "",
) -> Check:
    """Return the check of a score; with another name, that of a `metric` over the queries of `whose`."""
    limit = least if least is not None else most
    assert limit is not None
    # NaN compares false, so that a mean over no rows fails.
    ok = found.value >= limit if least is not None else found.value <= limit
    metric, kind = metric or name, LEAST if least is not None else MOST
    subject, bound = f"{_capital(metric)} unknown", figure(limit, _unit(metric), suffix=True)
    if found.is_known:
        shown, bound = _pair(found.value, limit, _unit(metric))
        template = _SUBJECTS.get(metric, f"{_capital(metric)} {{}}")
        subject = (
            f"{template.format(shown)}{f' of {found.rows:,} queries' if metric in _COUNTED else ''}{whose}"
        )
    text = f"{subject}; at {kind} {bound} wanted."
    return _check(name, found, limit, kind, ok=ok, against="threshold", reason=text)


def _judge_score(given: Grades | None, least: float) -> Check:
    grades = given or Grades(judge="", problem="none is set")
    score = grades.score
    text = f"Judge score {figure(score.value, 'points')} of 5; at least {figure(least, 'points')} wanted."
    if not score.is_known:
        limit = figure(least, "points")
        text = f"The judge gave no score, so at least {limit} can't be checked: {grades.problem}."
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


def _sentence(subject: str, wanted: str, possible: str, *, is_decided_by_interval: bool) -> str:
    """Return a finding; with what is possible if the value alone would pass."""
    return f"{subject}; {wanted} wanted{f', but {possible}' if is_decided_by_interval else ''}."


def _pair(found: float, limit: float, unit: str) -> tuple[str, str]:
    """Return a value and its limit, with more digits if both would look alike."""
    one, other = (figure(value, unit, suffix=True) for value in (found, limit))
    if one != other:
        return one, other
    scale, after = (100, "%") if unit == "share" else (1, "")
    return f"{scale * found:.6g}{after}", f"{scale * limit:.6g}{after}"


def _change(difference: float, name: str) -> str:
    """Return a difference in words, e.g. `3.2 points fewer` of a share, `0.012 larger` of an error."""
    if _unit(name) == "share":
        return f"{100 * abs(difference):.1f} points {'more' if difference > 0 else 'fewer'}"
    return f"{figure(abs(difference), 'weight')} {'smaller' if difference < 0 else 'larger'}"


def _between(found: Estimate, unit: str) -> str:
    low, high = figure(found.low, unit), figure(found.high, unit, suffix=True)
    return f"{low.removesuffix('%')} to {high}"


def _unit(name: str) -> str:
    """Return the unit of a metric, as `figure` takes it."""
    if name in METRICS:
        return METRICS[name].unit
    return {BALANCED: "share", BALANCED_ERROR: "weight"}.get(name, "ms" if name.endswith("_ms") else "")


def _capital(name: str) -> str:
    words = _words(name).removesuffix(" (ms)").removesuffix(" (USD)")
    return words[0].upper() + words[1:]


def _words(name: str) -> str:
    """Return a metric's name in words."""
    return {
        "dominant_accuracy": "dominant-label accuracy",
        "balanced_error": "mean absolute error by label",
        "latency_p50_ms": "median latency (ms)",
        "latency_p95_ms": "latency at p95 (ms)",
        "cost_per_1000_usd": "cost of 1,000 queries (USD)",
    }.get(name, name.replace("_", " "))
