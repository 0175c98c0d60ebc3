"""What is left for one caller while another floods the router: a simulation with the router's own rules.

    python -m benchmarks.callers

One caller sends batches without a pause to every execution environment; the other sends two queries a second,
each to any of them. A model takes 2,000 requests a minute and 0.4 s to answer. AWS does not say how Bedrock
counts a minute, so there are two ways: a bucket that fills evenly, and whole minutes. Time is simulated.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import stacks  # noqa: F401  # puts lambda/ on the import path
from router.allowances import Allowances, RefusedError
from router.breaker import Breaker, Result

QUOTA, ANSWER_SECONDS, REFUSAL_SECONDS, RETRY_SECONDS, STATIC_SECONDS = 2_000, 0.4, 0.02, 0.05, 0.2
SIDE_BY_SIDE, PAUSE, SECONDS = 16, 0.5, 600.0
MODELS = ("student", "base")
# The second is the router's.
RULES = ("a circuit for all callers", "an allowance for each caller")
FLOOD, OTHER = "flood", "other"


@dataclass
class Bucket:
    """A quota that fills evenly."""

    left: float = QUOTA
    at: float = 0.0

    def take(self, now: float) -> bool:
        """Return whether a request is within the quota."""
        elapsed, self.at = max(now - self.at, 0.0), max(now, self.at)
        self.left = min(self.left + elapsed * QUOTA / 60, QUOTA)
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass
class Minutes:
    """A quota of each whole minute."""

    taken: Counter[int] = field(default_factory=Counter)

    def take(self, now: float) -> bool:
        """Return whether a request is within the quota."""
        self.taken[int(now // 60)] += 1
        return self.taken[int(now // 60)] <= QUOTA


type Quotas = dict[str, Bucket] | dict[str, Minutes]


class Environment:
    """One execution environment with a rule for its circuits and allowances."""

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._breakers = {model: Breaker() for model in MODELS}
        self._allowances = Allowances(QUOTA)

    def ask(self, caller: str, now: float, quotas: Quotas) -> tuple[str, float]:
        """Return the source that answers a query, and the seconds that it takes."""
        took = 0.0
        for model in MODELS:
            allowance = self._allowances.of(model, caller, now)
            circuit = self._breakers[model] if self._rule == RULES[0] else allowance
            try:
                permit = circuit.enter(now)
            except RefusedError:
                continue
            if permit is None:
                continue
            answered = quotas[model].take(now + took)
            if not answered and (circuit is not allowance or allowance.take(now)):
                took += REFUSAL_SECONDS + RETRY_SECONDS
                answered = quotas[model].take(now + took)
            took += ANSWER_SECONDS if answered else REFUSAL_SECONDS
            result: Result = "answered" if answered else "failed"
            circuit.leave(permit, result, now)
            if answered:
                return model, took
        return "static", took + STATIC_SECONDS


def simulate(rule: str, environments: int, quotas: Quotas, seed: int = 1) -> dict[str, Counter[str]]:
    """Return how often each source answered each caller."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    known = [Environment(rule) for _ in range(environments)]
    # Each thread of the flood goes on as soon as its query is answered; -1 is the other caller.
    due = [(chance.random() * 0.1, place % environments) for place in range(environments * SIDE_BY_SIDE)]
    due.append((1.0, -1))
    heapq.heapify(due)
    found: dict[str, Counter[str]] = {FLOOD: Counter(), OTHER: Counter()}
    while due[0][0] < SECONDS:
        now, place = heapq.heappop(due)
        caller = OTHER if place < 0 else FLOOD
        environment = known[place] if place >= 0 else chance.choice(known)
        source, took = environment.ask(caller, now, quotas)
        found[caller][source] += 1
        heapq.heappush(due, (now + (PAUSE if place < 0 else took), place))
    return found


def table(environments: Sequence[int]) -> str:
    """Return the shares of the other caller's queries by source, and the flood's answers a minute."""
    kinds: dict[str, Callable[[], Quotas]] = {
        "filling evenly": lambda: {model: Bucket() for model in MODELS},
        "whole minutes": lambda: {model: Minutes() for model in MODELS},
    }
    lines = [
        "| quota | environments | rule | other: student | base | static | flood: models' answers a minute |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for kind, make in kinds.items():
        for count in environments:
            for rule in RULES:
                found = simulate(rule, count, make())
                other, flood = found[OTHER], found[FLOOD]
                shares = " | ".join(f"{other[source] / other.total():.0%}" for source in (*MODELS, "static"))
                answers = (flood.total() - flood["static"]) / SECONDS * 60
                lines.append(f"| {kind} | {count} | {rule} | {shares} | {answers:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table((1, 10))}\n")
