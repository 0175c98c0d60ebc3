"""How often a rollout takes a release back: a simulation with the project's own canary analysis.

    python -m benchmarks.rollout

Settings are those of `environments/prod.toml`. CloudWatch, the models and the hold-out set are simulated
(`benchmarks.rollout_world`): what the routers count for each round goes through `RouterMetrics`, what the
probes find through `Probed` and the release's item. All random numbers have a fixed seed.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import stacks  # noqa: F401  # puts lambda/ on the import path
from benchmarks.rollout_world import (
    EQUAL,
    MILLISECONDS,
    RATES,
    Quality,
    Requests,
    Rows,
    Traffic,
    Unlike,
    Zipf,
    bad,
    latency,
)
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from rollout.canary import CanaryAnalysis
from rollout.evidence import WRONG, Probed
from rollout.metrics import METRICS, PROCESSES, Count, ReleaseMetrics
from rollout.probes import Probes
from stacks.settings import load

ROLLOUTS = 2_000
STEPS = (50, 200, 400, 2_000, 10_000)
CANDIDATE, LIVE = "candidate", "live"
# Share of the hold-out rows that one of two equal releases answers rightly and the other wrongly, and of the
# rows that both answer wrongly.
DISCORDANT, WRONG_IN_BOTH = 0.05, 0.07


USUAL = Traffic(requests=400)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated.

    Attributes:
        candidate: its rates; the live release is `EQUAL`.
        families: of the hold-out set. Rows of a family, and equal queries, have equal outcomes.
        sound_probes: the candidate is bad in requests only.
        since: the round from which the candidate is bad; before it is as good as the live release.
        sigma: standard deviation of the latencies' logarithm.
    """

    candidate: Quality = EQUAL
    traffic: Traffic = USUAL
    families: int = 1_000
    sound_probes: bool = False
    since: int = 0
    sigma: float = 0.5


class Simulated:
    """CloudWatch and probes of one rollout."""

    def __init__(self, chance: random.Random, case: Case, probes: int) -> None:
        self._chance, self._case = chance, case
        self._found = (Requests(), Requests())
        of = (case.candidate, EQUAL)
        self._traffic = Zipf(chance, case.traffic, of) if case.traffic.zipf else Unlike(chance, case.traffic)
        probed = EQUAL if case.sound_probes else case.candidate
        self._rows = [self._faults(quality) for quality in (probed, EQUAL)]
        self._lost, self._won = self._differing(probed.loss)
        self._sound = self._faults(EQUAL)

    def _faults(self, quality: Quality) -> Mapping[str, Rows]:
        families = self._case.families
        found = bad(self._chance, quality, families)
        return {rate: Rows.of(places, families) for rate, places in found.items()}

    def _differing(self, loss: float) -> tuple[Rows, Rows]:
        rows = self._case.families
        drawn = self._chance.sample(range(rows), rows)
        lost = self._chance.binomialvariate(rows, DISCORDANT / 2 + loss)
        won = self._chance.binomialvariate(rows, DISCORDANT / 2)
        return Rows.of(drawn[:lost], rows), Rows.of(drawn[lost : lost + won], rows)

    def step(self, number: int, share: float) -> None:
        """Let the requests of a round come."""
        candidate = self._case.candidate if number >= self._case.since else EQUAL
        self._traffic.step(self._found, (candidate, EQUAL), share)
        self._round = number

    def get_metric_statistics(self, **wanted: Any) -> dict[str, Any]:
        """Return what CloudWatch would."""
        name, release = wanted["MetricName"], wanted["Dimensions"][1]["Value"]
        found = self._found[release != CANDIDATE]
        if not found.queries:
            return {"Datapoints": []}
        if name == "ModelLatency":
            total = self._milliseconds(release != CANDIDATE, found.queries)
        else:
            of_rate = {metric: rate for rate, metric in METRICS.items()}
            total = found.processes if name == PROCESSES else found.bad[of_rate[name]]
        return {"Datapoints": [{"Sum": float(total), "SampleCount": float(found.queries)}]}

    def ask(self, endpoints: Sequence[str], count: int, *, after: int = 0, **_: Any) -> Probed:
        """Return what probes would find."""
        mine = self._rows[0] if self._round >= self._case.since else self._sound
        lost, won = self._lost.among(after, count), self._won.among(after, count)
        wrong = WRONG_IN_BOTH * count
        found = [
            ReleaseMetrics(
                {rate: Count(rows[rate].among(after, count), count) for rate in RATES}
                | {WRONG: Count(wrong + more, count)},
                Count(self._milliseconds(place, count), count),
            )
            for place, (rows, more) in enumerate(((mine, lost), (self._rows[1], won)))
        ]
        return Probed(
            asked=count,
            families=self._case.families,
            candidate=found[0],
            live=found[1],
            lost=lost,
            won=won,
            both=count,
        )

    def _milliseconds(self, place: int, answers: int) -> float:
        slower = self._case.candidate.slower if place == 0 else 1.0
        return latency(self._chance, answers, MILLISECONDS * slower, self._case.sigma)


def rolled_back(chance: random.Random, case: Case, rollout: Rollout, gate: Gate) -> tuple[int, str] | None:
    """Return the round after which a candidate is rolled back, and why; None if it goes live."""
    world = Simulated(chance, case, rollout.probes)
    analysis = CanaryAnalysis(world, "simulated", rollout, gate, cast("Probes", world))
    release, live = Release(CANDIDATE, endpoint=CANDIDATE), Share(LIVE, LIVE, 1.0)
    for number, share in enumerate(rollout.rounds):
        world.step(number, share)
        found = analysis.analyse(release, live, at=600)
        if found.problem:
            return number, found.problem
        release = replace(release, probed=found.probes.to_text())
    return None


@dataclass(frozen=True)
class Rate:
    """How many of some rollouts were taken back, and how many of them before the last step."""

    back: float
    early: float


def simulate(case: Case, rollouts: int = ROLLOUTS, **changes: Any) -> Rate:
    """Simulate rollouts with the settings of prod and some changes."""
    rollout, gate = settings(**changes)
    chance = random.Random(f"{case}")  # noqa: S311  # the same every time
    found = [rolled_back(chance, case, rollout, gate) for _ in range(rollouts)]
    rounds = [one[0] for one in found if one]
    early = sum(rollout.rounds[number] < 1 for number in rounds)
    return Rate(len(rounds) / rollouts, early / rollouts)


def settings(**changes: Any) -> tuple[Rollout, Gate]:
    """Return the rollout's and the gate's settings of prod."""
    prod = load("prod")
    return replace(Rollout.of(prod.rollout.to_function()), **changes), Gate(**prod.gate.to_function())


def _table(title: str, head: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def _equal(rollouts: int) -> Iterator[Sequence[str]]:
    for requests in STEPS:
        cells = [Traffic(requests=requests)]
        cells += [Traffic(requests=requests, processes=processes, zipf=True) for processes in (1, 3, 10)]
        found = [simulate(Case(traffic=traffic), rollouts) for traffic in cells]
        yield [f"{requests:,}", *(f"{one.back:.1%}" for one in found)]


WORSE = {
    "errors 2.5 %": Quality(error=0.025),
    "fallbacks 7.5 %": Quality(fallback=0.075),
    "invalid 5 %": Quality(invalid=0.05),
}
"""Each at 2.5 times one limit."""

SLIGHTLY_WORSE = {
    "errors 1.33 %": Quality(error=0.0133),
    "fallbacks 4 %": Quality(fallback=0.04),
    "invalid 2.67 %": Quality(invalid=0.0267),
    "all three": Quality(error=0.0133, fallback=0.04, invalid=0.0267),
}
"""At 1.33 times a limit."""


def _worse(rollouts: int) -> Iterator[Sequence[str]]:
    for requests in STEPS:
        cells = [(quality, families) for families in (1_000, 3_000) for quality in WORSE.values()]
        found = [
            simulate(Case(candidate=quality, traffic=Traffic(requests=requests), families=families), rollouts)
            for quality, families in cells
        ]
        yield [f"{requests:,}", *(f"{one.early:.1%}" for one in found)]


def _slightly(rollouts: int) -> Iterator[Sequence[str]]:
    for name, quality in SLIGHTLY_WORSE.items():
        found = [
            simulate(Case(candidate=quality, families=families), rollouts) for families in (400, 1_000, 3_000)
        ]
        yield [name, *(f"{one.back:.1%}" for one in found)]


_LIMITS = Quality(error=0.01, fallback=0.03, invalid=0.02)
_BAD = Quality(fallback=0.075)
OTHERS = {
    "errors at their limit": Case(candidate=Quality(error=0.01)),
    "fallbacks at their limit": Case(candidate=Quality(fallback=0.03)),
    "all three rates at their limits": Case(candidate=_LIMITS),
    "the same, Zipf, 10 processes": Case(
        candidate=_LIMITS, traffic=Traffic(requests=400, processes=10, zipf=True)
    ),
    "equal, 200 families": Case(families=200),
    "equal, heavy-tailed latency (sigma 1)": Case(sigma=1.0),
    "equal, very heavy-tailed latency (sigma 1.5)": Case(sigma=1.5),
    "twice as slow": Case(candidate=Quality(slower=2.0)),
    "fallbacks 7.5 % in requests only": Case(candidate=_BAD, sound_probes=True),
    "the same at 2,000 requests": Case(candidate=_BAD, sound_probes=True, traffic=Traffic(requests=2_000)),
    "fallbacks 7.5 % from the last step on": Case(candidate=_BAD, since=3, families=3_000),
    "5 points fewer right answers, 200 families": Case(candidate=Quality(loss=0.05), families=200),
    "5 points fewer right answers, 1,000 families": Case(candidate=Quality(loss=0.05)),
    "10 points fewer right answers, 200 families": Case(candidate=Quality(loss=0.10), families=200),
    "10 points fewer right answers, 1,000 families": Case(candidate=Quality(loss=0.10)),
}
"""What else one wants to know, at 400 requests a step."""


def _others(rollouts: int) -> Iterator[Sequence[str]]:
    for name, case in OTHERS.items():
        found = simulate(case, rollouts)
        yield [name, f"{found.early:.1%}", f"{found.back:.1%}"]


def main() -> int:
    """Print all tables."""
    rollouts = int(sys.argv[1]) if len(sys.argv) > 1 else ROLLOUTS
    began = time.process_time()
    zipf = [f"Zipf, {count} process{'es' if count > 1 else ''}" for count in (1, 3, 10)]
    _table("Equal release, taken back:", ["requests a step", "all differ", *zipf], _equal(rollouts))
    worse = [f"{name}, {families:,} families" for families in (1_000, 3_000) for name in WORSE]
    _table(
        "2.5 times a limit, found before it has all requests:", ["requests a step", *worse], _worse(rollouts)
    )
    families = ["400 families", "1,000 families", "3,000 families"]
    _table("1.33 times a limit at 400 requests a step, taken back:", ["", *families], _slightly(rollouts))
    _table("Others, at 400 requests a step:", ["", "before the last step", "at all"], _others(rollouts))
    print(f"\n{rollouts:,} rollouts a cell, {time.process_time() - began:.0f} CPU seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
