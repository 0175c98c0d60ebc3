"""What a deployment will cost, before anything of it is paid for, and the limit that it has to keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import floor, log10

from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import ResourceError
from distilled_router.cost.lines import Amount, Case, Line, Spec, Volume
from distilled_router.cost.prices import PriceError, Prices
from distilled_router.task.task import Task

__all__ = [
    "Amount",
    "Estimate",
    "Line",
    "Part",
    "Spec",
    "Volume",
    "check",
    "dollars",
    "enforce_limit",
    "estimate",
    "graded",
]

# The router that AWS published asks the first of these, with a full prompt; the other is its successor.
COMPARED = {
    "Claude Haiku 4.5": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "Claude Haiku 5.5": "us.anthropic.claude-haiku-5-5",
}


@dataclass(frozen=True)
class Part:
    """Lines that are paid at the same time; and what has no known price, by name, with the reason."""

    lines: tuple[Line, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected_usd(self) -> float:
        """All lines together, as expected."""
        return sum(line.expected.usd for line in self.lines)

    @property
    def at_most_usd(self) -> float:
        """All lines together, at most."""
        return sum(line.at_most.usd for line in self.lines)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is paid once, what each month, and what for 1,000 queries by whoever answers them: the last are
    alternatives, whose sum means nothing."""

    once: Part
    monthly: Part
    per_thousand: Part


def estimate(spec: Spec, volume: Volume, task: Task, prices: Prices) -> Estimate:
    """Estimate all costs. An unknown price is no error here; `check` refuses it where it matters.

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
        once = {"labels by the teacher": case.labels, **once}
    answering = {
        "distilled": (spec.student, False),
        "base": (spec.base_model, True),
        "teacher": (spec.teacher, True),
        **{name: (model, True) for name, model in COMPARED.items()},
    }
    thousand = {
        name: partial(case.thousand, model=model, full=full) for name, (model, full) in answering.items()
    }
    return Estimate(
        once=_part(once),
        monthly=_part({"storage": case.storage, "hosting": case.hosting}),
        per_thousand=_part(thousand),
    )


def graded(spec: Spec, volume: Volume, task: Task, prices: Prices, *, judge: str, instructions: str) -> Part:
    """What a judge's grades cost for each release, by what it is told."""
    case = Case(spec, volume, task, prices)
    return _part({"judge": partial(case.graded, judge=judge, instructions=instructions)})


def check(found: Estimate, maximum_usd: float) -> str | None:
    """Why an estimate must not be paid, in words for a person; None if it may be.

    What is paid once is held, at most, against `maximum_usd`, the setting `distillation.maximum_cost_usd`.
    Where a price of it is unknown there is nothing to hold against the limit, and it is refused, too.
    """
    limit = f"distillation.maximum_cost_usd = {maximum_usd:g}"
    if found.once.unknown:
        reasons = "; ".join(dict.fromkeys(found.once.unknown.values()))
        return f"The cost can't be held against {limit}, and nothing was paid: {reasons}."
    if found.once.at_most_usd <= maximum_usd:
        return None
    biggest = sorted(found.once.lines, key=lambda line: -line.at_most.usd)[:2]
    parts = "; ".join(f"{line.name} {dollars(line.at_most.usd)} = {line.at_most.how}" for line in biggest)
    remedies = "; ".join(dict.fromkeys(line.lower for line in biggest))
    return (
        f"This may cost {dollars(found.once.at_most_usd)} USD once, more than {limit}, and nothing was paid; "
        f"{dollars(found.once.expected_usd)} USD are expected. Most of it, at most: {parts}. To lower it: "
        f"{remedies}. Or raise the limit. `make cost` shows all of it."
    )


def enforce_limit(event: Event, volume: Volume, task: Task) -> None:
    """Raise ResourceError where a resource's properties `Cost` (a Spec as JSON) and `MaximumCostUsd` refuse
    what its data would cost. Without them nothing is refused; nor is what passed before, unchanged."""
    given, old = event.properties, event.old_properties
    if "Cost" not in given or all(old.get(name) == given.get(name) for name in ("Cost", "Digest", "Plan")):
        return
    found = estimate(Spec(**json.loads(str(given["Cost"]))), volume, task, Prices.load())
    if problem := check(found, float(given["MaximumCostUsd"])):
        raise ResourceError(problem)


def dollars(usd: float) -> str:
    """US dollars as text: cents, or of less than a dollar the first two digits."""
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
