"""How often a rollout takes a release back: a simulation with the project's own canary analysis.

    python -m benchmarks.rollout
    python -m benchmarks.rollout 600 head   # 600 rollouts, and only the tables with this word in their title

Settings are those of `environments/prod.toml`. CloudWatch, the models and the hold-out set are simulated
(`benchmarks.rollout_world`): what the routers count for each round goes through `RouterMetrics`, what the
probes find through `Probed` and the release's item. All random numbers have a fixed seed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, repeat
from typing import Any, cast

import stacks  # noqa: F401  # puts lambda/ on the import path
from benchmarks.rollout_world import (
    EQUAL,
    RATES,
    Heads,
    Quality,
    Requests,
    Rows,
    Sample,
    Traffic,
    Unlike,
    Zipf,
    bad,
    slow_pairs,
)
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from rollout.canary import CanaryAnalysis
from rollout.evidence import WRONG, Probed
from rollout.metrics import (
    BY_HEAD,
    EXPLORED,
    FALLBACK,
    HEAD_ANSWERS,
    METRICS,
    PROCESSES,
    REPEATED,
    Count,
    ReleaseMetrics,
)
from rollout.probes import Probes
from stacks.settings import load

ROLLOUTS = 2_000
STEPS = (50, 200, 400, 2_000, 10_000)
CANDIDATE, LIVE = "candidate", "live"
# Share of the hold-out rows that one of two equal releases answers rightly and the other wrongly, and of the
# rows that both answer wrongly.
DISCORDANT, WRONG_IN_BOTH = 0.05, 0.07
# Part of a round's requests that CloudWatch does not have yet when the round is judged: those of the last one
# and a half of 30 minutes.
LATE = 0.05

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
        one_round: the rollout has one step and no bake.
    """

    candidate: Quality = EQUAL
    traffic: Traffic = USUAL
    families: int = 1_000
    sound_probes: bool = False
    since: int = 0
    sigma: float = 0.5
    one_round: bool = False


class Simulated:
    """CloudWatch and probes of one rollout."""

    def __init__(self, chance: random.Random, case: Case, probes: int) -> None:
        self._chance, self._case = chance, case
        self._found = (Requests(), Requests())
        of = (case.candidate, EQUAL)
        self._traffic = Zipf(chance, case.traffic, of) if case.traffic.zipf else Unlike(chance, case.traffic)
        probed = EQUAL if case.sound_probes else case.candidate
        self._rows = [self._faults(quality) for quality in (probed, EQUAL)]
        self._lost, self._won, self._wrong = self._wrongly(probed.loss)
        self._sound = self._faults(EQUAL)

    def _faults(self, quality: Quality) -> Mapping[str, Rows]:
        families = self._case.families
        found = bad(self._chance, quality, families)
        return {rate: Rows.of(places, families) for rate, places in found.items()}

    def _wrongly(self, loss: float) -> Iterator[Rows]:
        """Yield the rows that the candidate alone, the live release alone, and both answer wrongly."""
        rows = self._case.families
        drawn = iter(self._chance.sample(range(rows), rows))
        for share in (DISCORDANT / 2 + loss, DISCORDANT / 2, WRONG_IN_BOTH):
            yield Rows.of(islice(drawn, self._chance.binomialvariate(rows, share)), rows)

    def step(self, number: int, share: float) -> None:
        """Let the requests of a round come. Its last ones are in CloudWatch after the next round only."""
        candidate = self._case.candidate if number >= self._case.since else EQUAL
        before = [replace(of, left=replace(of.left), explored=replace(of.explored)) for of in self._found]
        self._traffic.step(self._found, (candidate, EQUAL), share)
        self._late = [
            Requests(
                self._late_part(now.left, then.left),
                self._late_part(now.explored, then.explored),
                self._late_number(now.by_head - then.by_head) if now.by_head else 0,
            )
            for now, then in zip(self._found, before, strict=True)
        ]
        self._round = number

    def _late_number(self, number: int) -> int:
        return self._chance.binomialvariate(number, LATE)

    def _late_part(self, now: Sample, then: Sample) -> Sample:
        if now.queries == 0:
            return Sample()
        failed = {rate: self._late_number(now.bad[rate] - then.bad[rate]) for rate in RATES}
        return Sample(max(self._late_number(now.queries - then.queries), *failed.values()), failed)

    def get_metric_statistics(self, **wanted: Any) -> dict[str, Any]:
        """Return what CloudWatch would."""
        name, release = wanted["MetricName"], wanted["Dimensions"][1]["Value"]
        found, late = (of[release != CANDIDATE] for of in (self._found, self._late))
        total, queries = self._statistics(name, found, late)
        return {"Datapoints": [{"Sum": float(total), "SampleCount": float(queries)}] if queries else []}

    def _statistics(self, name: str, found: Requests, late: Requests) -> tuple[int, int]:
        """Return a metric's sum, and the number of its values."""
        samples = ((METRICS, found.left, late.left), (EXPLORED, found.explored, late.explored))
        for metrics, sample, missing in samples:
            for rate, metric in metrics.items():
                if name == metric:
                    return sample.bad[rate] - missing.bad[rate], sample.queries - missing.queries
        by_head = found.by_head - late.by_head
        return {
            FALLBACK: (found.fallbacks, found.requests),
            HEAD_ANSWERS: (found.head_answers, found.requests + found.head_answers),
            PROCESSES: (found.processes, found.queries - late.queries),
            REPEATED: (found.repeated, found.repeated),
            BY_HEAD: (by_head, by_head),
        }[name]

    def ask(
        self, endpoints: Sequence[str], count: int, *, after: int = 0, latency_margin: float, **_: Any
    ) -> Probed:
        """Return what probes would find."""
        mine = self._rows[0] if self._round >= self._case.since else self._sound
        lost, won, wrong = (rows.among(after, count) for rows in (self._lost, self._won, self._wrong))
        found = [
            ReleaseMetrics(
                {rate: Count(rows[rate].among(after, count), count) for rate in RATES}
                | {WRONG: Count(wrong + more, count)}
            )
            for rows, more in ((mine, lost), (self._rows[1], won))
        ]
        slow = slow_pairs(self._case.candidate.slower, self._case.sigma, latency_margin)
        place = self._chance.randrange(len(slow) - count)
        return Probed(
            asked=count,
            families=self._case.families,
            candidate=found[0],
            live=found[1],
            lost=lost,
            won=won,
            both=count,
            slower=Count(slow[place + count] - slow[place], count),
        )


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
    """The share of rollouts that were rolled back, and of those that were before the last step."""

    back: float
    early: float


def simulate(case: Case, rollouts: int = ROLLOUTS) -> Rate:
    """Simulate rollouts with the settings of prod."""
    prod = load("prod")
    rollout, gate = Rollout.of(prod.rollout.to_function()), Gate(**prod.gate.to_function())
    if case.one_round:
        rollout = replace(rollout, steps=(1.0,), bake_seconds=0)
    chance = random.Random(f"{case}")  # noqa: S311  # the same every time
    found = [rolled_back(chance, case, rollout, gate) for _ in range(rollouts)]
    rounds = [one[0] for one in found if one]
    early = sum(rollout.rounds[number] < 1 for number in rounds)
    return Rate(len(rounds) / rollouts, early / rollouts)


def zipf(requests: int, processes: int) -> Traffic:
    """Return traffic with few frequent queries; of 30 processes, Lambda replaces three of ten each round."""
    return Traffic(requests=requests, processes=processes, zipf=True, replaced=0.3 * (processes >= 30))


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

_LIMITS, _NEAR = (Quality(error=0.01 * part, fallback=0.03 * part, invalid=0.02 * part) for part in (1, 0.8))
_BAD = Quality(fallback=0.075)
OTHERS = {
    "errors at their limit": Case(candidate=Quality(error=0.01)),
    "fallbacks at their limit": Case(candidate=Quality(fallback=0.03)),
    "all three rates at their limits": Case(candidate=_LIMITS),
    "the same, Zipf, 10 processes": Case(candidate=_LIMITS, traffic=zipf(400, 10)),
    "all three rates at 80 % of their limits": Case(candidate=_NEAR),
    "the same at 10,000 requests": Case(candidate=_NEAR, traffic=Traffic(requests=10_000)),
    "equal, 200 families": Case(families=200),
    "equal, 100 families, 50 requests": Case(families=100, traffic=Traffic(requests=50)),
    "equal, one round only, 50 requests": Case(one_round=True, traffic=Traffic(requests=50)),
    "equal, one round only, 100 families": Case(one_round=True, families=100),
    "equal, heavy-tailed latency (sigma 1)": Case(sigma=1.0),
    "equal, very heavy-tailed latency (sigma 1.5)": Case(sigma=1.5),
    "twice as slow": Case(candidate=Quality(slower=2.0)),
    "twice as slow, heavy-tailed (sigma 1)": Case(candidate=Quality(slower=2.0), sigma=1.0),
    "twice as slow, very heavy-tailed (sigma 1.5)": Case(candidate=Quality(slower=2.0), sigma=1.5),
    "fallbacks 7.5 % in requests only": Case(candidate=_BAD, sound_probes=True),
    "the same at 2,000 requests": Case(candidate=_BAD, sound_probes=True, traffic=Traffic(requests=2_000)),
    "fallbacks 7.5 % from the last step on": Case(candidate=_BAD, since=3, families=3_000),
    "the 20 most frequent queries fail, Zipf, 1 process, 2,000 requests": Case(
        traffic=replace(zipf(2_000, 1), frequent=20)
    ),
    "5 points fewer right answers, 200 families": Case(candidate=Quality(loss=0.05), families=200),
    "5 points fewer right answers, 1,000 families": Case(candidate=Quality(loss=0.05)),
    "10 points fewer right answers, 200 families": Case(candidate=Quality(loss=0.10), families=200),
    "10 points fewer right answers, 1,000 families": Case(candidate=Quality(loss=0.10)),
}
"""Further cases, at 400 requests a step."""


@dataclass(frozen=True)
class Table:
    """A table of the report: the cases of each row, and the columns' names."""

    title: str
    head: Sequence[str]
    rows: Mapping[str, Sequence[Case]]
    early: bool = True
    at_all: bool = True

    def show(self, found: Iterator[Rate]) -> None:
        """Print the table as Markdown, with the next results."""
        print(f"\n{self.title}\n\n| {' | '.join(self.head)} |\n|---|{'---:|' * (len(self.head) - 1)}")
        for name, cases in self.rows.items():
            rates = [next(found) for _ in cases]
            shown = [f"{one.early:.1%}" for one in rates if self.early]
            shown += [f"{one.back:.1%}" for one in rates if self.at_all]
            print(f"| {name} | {' | '.join(shown)} |", flush=True)


def tables() -> Iterator[Table]:
    """Yield all tables."""
    kinds = ["all differ", *(f"Zipf, {count} process{'es' * (count > 1)}" for count in (1, 3, 10, 30))]
    yield Table(
        "Equal release, rolled back:",
        ["requests a step", *kinds],
        {
            f"{requests:,}": [
                Case(traffic=traffic)
                for traffic in (Traffic(requests=requests), *(zipf(requests, n) for n in (1, 3, 10, 30)))
            ]
            for requests in STEPS
        },
        early=False,
    )
    yield Table(
        "2.5 times a limit, rolled back before it has all requests:",
        ["requests a step", *(f"{name}{more}" for more in ("", ", Zipf") for name in WORSE)],
        {
            f"{requests:,}": [
                Case(candidate=quality, traffic=traffic)
                for traffic in (Traffic(requests=requests), zipf(requests, 10))
                for quality in WORSE.values()
            ]
            for requests in STEPS
        },
        at_all=False,
    )
    yield Table(
        "1.33 times a limit at 400 requests a step, rolled back:",
        ["", "400 families", "1,000 families", "the same, Zipf", "3,000 families"],
        {
            name: [
                Case(candidate=quality, families=400),
                Case(candidate=quality),
                Case(candidate=quality, traffic=zipf(400, 10)),
                Case(candidate=quality, families=3_000),
            ]
            for name, quality in SLIGHTLY_WORSE.items()
        },
        early=False,
    )
    yield from head_tables()
    others = {name: [case] for name, case in OTHERS.items()}
    yield Table("Others, at 400 requests a step:", ["", "before the last step", "at all"], others)


def head_tables() -> Iterator[Table]:
    """Yield the tables of releases whose head answers first. It answers the easiest queries."""
    pairs = {
        "none": (0.0, 0.0),
        "4 % both": (0.04, 0.04),
        "60 %, none": (0.6, 0.0),
        "none, 60 %": (0.0, 0.6),
        "60 % both": (0.6, 0.6),
    }
    pairs["90 % both"] = (0.9, 0.9)
    kinds = (
        Traffic(requests=400),
        Traffic(requests=2_000),
        Traffic(requests=10_000),
        zipf(400, 10),
        zipf(2_000, 10),
    )
    yield Table(
        "Equal release, all failures among the hardest 40 % of the queries, rolled back; by what the head of "
        "candidate and live release answers:",
        ["", "400", "2,000", "10,000", "400, Zipf", "2,000, Zipf"],
        {
            name: [
                Case(traffic=replace(kind, heads=Heads(candidate=mine, live=theirs, hard=0.4)))
                for kind in kinds
            ]
            for name, (mine, theirs) in pairs.items()
        },
        early=False,
    )
    requests = (400, 2_000, 10_000)
    yield Table(
        "Invalid output 5 %, rolled back; by what the heads of both releases answer:",
        ["", "with probes, 400", *(f"requests alone, {number:,}" for number in requests)],
        {
            f"{first:.0%}": [
                Case(
                    candidate=Quality(invalid=0.05),
                    traffic=Traffic(requests=number, heads=Heads(candidate=first, live=first)),
                    sound_probes=alone,
                )
                for number, alone in ((400, False), *((number, True) for number in requests))
            ]
            for first in (0.0, 0.5, 0.9)
        },
        early=False,
    )


def main() -> int:
    """Print all tables, or those with a word in their title."""
    rollouts = int(sys.argv[1]) if len(sys.argv) > 1 else ROLLOUTS
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    shown = [table for table in tables() if word in table.title]
    cases = [case for table in shown for row in table.rows.values() for case in row]
    with ProcessPoolExecutor() as pool:
        found = iter(pool.map(simulate, cases, repeat(rollouts)))
        for table in shown:
            table.show(found)
    print(f"\n{rollouts:,} rollouts a cell.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
