"""Estimate what a deployment costs, before anything is paid for, and compare it with the limit.

`cost.limit` compares it together with what was committed before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import floor, log10

from distilled_router.cost.lines import Amount, Case, Line, Spec, Volume
from distilled_router.cost.prices import PriceError, Prices
from distilled_router.task.task import Task

__all__ = [
    "LABELS",
    "Amount",
    "Estimate",
    "Line",
    "Part",
    "Spec",
    "Volume",
    "check",
    "dollars",
    "each_release",
    "estimate",
]

# The router that AWS published asks the first of these with a full prompt; the second is its successor.
COMPARED = {
    "Claude Haiku 4.5": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "Claude Haiku 5.5": "us.anthropic.claude-haiku-5-5",
}
# The line of the teacher's answers to raw queries.
LABELS = "labels by the teacher"


@dataclass(frozen=True)
class Part:
    """Lines that are paid at the same time, and lines without a known price: by name, with the reason."""

    lines: tuple[Line, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected_usd(self) -> float:
        """Return the expected cost of all lines, in US dollars."""
        return sum(line.expected.usd for line in self.lines)

    @property
    def at_most_usd(self) -> float:
        """Return the maximum cost of all lines, in US dollars."""
        return sum(line.at_most.usd for line in self.lines)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is paid once, each month, and for 1,000 queries.

    The lines of `per_thousand` are alternatives, one for each model that may answer; their sum means nothing.
    """

    once: Part
    monthly: Part
    per_thousand: Part


def estimate(spec: Spec, volume: Volume, task: Task, prices: Prices) -> Estimate:
    """Estimate all costs. An unknown price is not an error here; `check` refuses it where it matters.

    Example:
        >>> spec = Spec(
        ...     method="fine_tuning",
        ...     teacher="us.amazon.nova-pro-v1:0",
        ...     student="amazon.nova-micro-v1:0:128k",
        ...     base_model="us.amazon.nova-micro-v1:0",
        ... )
        >>> found = estimate(spec, Volume(queries=2_000), Task.load(), Prices.load())
        >>> dollars(found.once.expected_usd)
        '0.19'
        >>> check(found, 200)
    """
    case = Case(spec, volume, task, prices)
    once: dict[str, Callable[[str], Line]] = {"training": case.training}
    if case.most_pairs:
        once = {"teacher in the job": case.pairs, **once}
    if spec.samples:
        once = {LABELS: case.labels, **once}
    answering = {
        "distilled": (spec.student, False),
        "base": (spec.base_model, True),
        "teacher": (spec.teacher, True),
        **{name: (model, True) for name, model in COMPARED.items()},
    }
    thousand = {
        name: partial(case.answers, model=model, full=full) for name, (model, full) in answering.items()
    }
    return Estimate(
        once=_part(once),
        monthly=_part({"storage": case.storage, "hosting": case.hosting}),
        per_thousand=_part(thousand),
    )


def each_release(
    spec: Spec,
    volume: Volume,
    task: Task,
    prices: Prices,
    *,
    questions: int,
    compares_base: bool,
    probes: int,
    judge: str | None = None,
    instructions: str = "",
) -> Part:
    """Estimate the tokens of a release besides its job's: evaluation, a rollout's probes, a judge's grades.

    `questions` are those of the evaluation, which the base model may answer too; `probes` are those of all
    rounds; `instructions` are the judge's prompt.
    """
    case = Case(spec, volume, task, prices)
    lines: dict[str, Callable[[str], Line]] = {
        "evaluation": partial(case.evaluated, questions=questions, compares_base=compares_base)
    }
    if probes:
        lines["probes"] = partial(case.probed, probes=probes)
    if judge:
        lines["judge"] = partial(case.graded, judge=judge, instructions=instructions)
    return _part(lines)


def check(found: Estimate, maximum_usd: float) -> str | None:
    """Return why an estimate is refused by itself, as text for a person, or None.

    The maximum of what is paid once must not exceed `maximum_usd`, the setting
    `distillation.maximum_cost_usd`. If one of its prices is unknown, the limit can't be checked, and the
    estimate is refused, too.
    """
    limit = f"distillation.maximum_cost_usd = {maximum_usd:g}"
    if found.once.unknown:
        reasons = "; ".join(dict.fromkeys(found.once.unknown.values()))
        return f"The cost can't be checked against {limit}, and nothing was paid: {reasons}."
    if found.once.at_most_usd <= maximum_usd:
        return None
    biggest = sorted(found.once.lines, key=lambda line: -line.at_most.usd)[:2]
    parts = "; ".join(f"{line.name} {dollars(line.at_most.usd)} = {line.at_most.how}" for line in biggest)
    remedies = "; ".join(dict.fromkeys(line.lower for line in biggest))
    return (
        f"This may cost {dollars(found.once.at_most_usd)} USD once, more than {limit}, and nothing was paid; "
        f"{dollars(found.once.expected_usd)} USD are expected. The largest parts, at most: {parts}. To lower "
        f"it: {remedies}. Or raise the limit. `make cost` shows the whole estimate."
    )


def dollars(usd: float) -> str:
    """Return US dollars as text: with cents, or two significant digits below one dollar."""
    decimals = 2 if usd >= 1 or usd <= 0 else 1 - floor(log10(usd))
    return f"{usd:,.{decimals}f}"


def _part(lines: Mapping[str, Callable[[str], Line]]) -> Part:
    known: list[Line] = []
    unknown: dict[str, str] = {}
    for name, line in lines.items():
        try:
            known.append(line(name))
        except PriceError as error:
            unknown[name] = str(error)
    return Part(tuple(known), unknown)
