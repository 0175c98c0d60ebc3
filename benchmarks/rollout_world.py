"""Traffic, releases and hold-out set of a simulated rollout, for `benchmarks.rollout`."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise

from rollout.evidence import Answer

QUERIES = 20_000
"""Different queries of Zipf traffic: the n-th is asked 1/n times as often as the first."""

MILLISECONDS = 400.0
"""Mean latency of the live release's model. Single latencies are log-normal."""

RATES = ("error_rate", "fallback_rate", "invalid_output_rate")
_POOL = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The true rates of a release.

    An invalid output is a fallback too; errors are independent of both. Equal queries have equal outcomes.

    Attributes:
        loss: share of answers whose dominant label is wrong, more than the live release's.
        slower: mean latency in units of the live release's.
    """

    error: float = 0.005
    fallback: float = 0.02
    invalid: float = 0.01
    loss: float = 0.0
    slower: float = 1.0

    @property
    def rates(self) -> Mapping[str, float]:
        """Return the true rates by name."""
        fallback = max(self.fallback, self.invalid)
        return dict(zip(RATES, (self.error, fallback, self.invalid), strict=True))


EQUAL = Quality()
"""A release within all limits of the prod example, which are twice, 1.5 times and twice its rates."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The classification heads of both releases. Each answers the easiest of the queries.

    Attributes:
        candidate, live: share of the queries that the release's head answers first.
        explored: share of these that the student is asked all the same.
        hard: share of the queries, the hardest ones, that have all fallbacks and invalid outputs.
    """

    candidate: float = 0.0
    live: float = 0.0
    explored: float = 0.05
    hard: float = 1.0

    def parts(self, release: int) -> Iterator[tuple[float, bool, float]]:
        """Yield parts of the queries: size, whether the head answers first, and how often failures are there.

        `release` is 0 for the candidate and 1 for the live release. Failures are told as a multiple of those
        among all queries.
        """
        first = (self.candidate, self.live)[release]
        points = sorted({0.0, first, 1 - self.hard, 1.0})
        for start, end in pairwise(points):
            yield end - start, start < first, (start >= 1 - self.hard) / self.hard


NO_HEADS = Heads()


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests of each step, to both releases together, and the router's processes that share them.

    Without `zipf` all queries differ. After each round, Lambda replaces a part of the processes: `replaced`.
    To so many of the most frequent queries the candidate gives no answer: `frequent`.
    """

    requests: int
    processes: int = 3
    zipf: bool = False
    replaced: float = 0.0
    frequent: int = 0
    # Not in the text, which gives the seed: all heads get the same traffic.
    heads: Heads = field(default=NO_HEADS, repr=False)


@dataclass
class Sample:
    """Queries that the student was asked, and those to which it gave no good answer, by rate."""

    queries: int = 0
    bad: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RATES, 0))

    def add(self, queries: int, bad: Mapping[str, int]) -> None:
        """Add the queries of a process or of a step."""
        self.queries += queries
        self.bad = {rate: count + bad[rate] for rate, count in self.bad.items()}


@dataclass
class Requests:
    """What the routers have counted for a release.

    Attributes:
        left, explored: queries that a process sees for the first time and the student is asked, because the
            head leaves them to it, or all the same.
        by_head: queries that the head answers when a process sees them for the first time.
        requests, fallbacks: of the student, equal ones too.
        head_answers: requests that the head answers.
    """

    left: Sample = field(default_factory=Sample)
    explored: Sample = field(default_factory=Sample)
    by_head: int = 0
    processes: int = 0
    repeated: int = 0
    requests: int = 0
    fallbacks: int = 0
    head_answers: int = 0

    @property
    def queries(self) -> int:
        """Return the number of different queries."""
        return self.left.queries + self.explored.queries + self.by_head


class Unlike:
    """Traffic whose queries all differ."""

    def __init__(self, chance: random.Random, traffic: Traffic) -> None:
        self._chance, self._traffic = chance, traffic

    def step(self, found: Sequence[Requests], of: Sequence[Quality], share: float) -> None:
        """Add the requests of a step to those of candidate and live release."""
        mine = self._chance.binomialvariate(self._traffic.requests, share)
        numbers = (mine, self._traffic.requests - mine)
        for release, (requests, quality, number) in enumerate(zip(found, of, numbers, strict=True)):
            rest, size = number, 1.0
            for part, is_easy, times in self._traffic.heads.parts(release):
                queries = self._chance.binomialvariate(rest, min(part / size, 1.0))
                rest, size = rest - queries, max(size - part, 1e-9)
                asked = queries
                if is_easy:
                    asked = self._chance.binomialvariate(queries, self._traffic.heads.explored)
                bad = self._bad(asked, quality, times)
                (requests.explored if is_easy else requests.left).add(asked, bad)
                requests.by_head += queries - asked
                requests.head_answers += queries - asked
                requests.requests += asked
                requests.fallbacks += bad["fallback_rate"]
            requests.processes = min(self._traffic.processes, requests.queries)

    def _bad(self, queries: int, quality: Quality, times: float) -> dict[str, int]:
        rates = quality.rates
        fallbacks = self._chance.binomialvariate(queries, min(rates["fallback_rate"] * times, 1.0))
        part = rates["invalid_output_rate"] / (rates["fallback_rate"] or 1.0)
        errors = self._chance.binomialvariate(queries, rates["error_rate"])
        invalid = self._chance.binomialvariate(fallbacks, part)
        return dict(zip(RATES, (errors, fallbacks, invalid), strict=True))


class Zipf:
    """Traffic of a rollout in which few queries make up most requests."""

    def __init__(self, chance: random.Random, traffic: Traffic, of: Sequence[Quality]) -> None:
        self._chance, self._traffic = chance, traffic
        heads = traffic.heads
        by_ease = range(QUERIES) if heads == NO_HEADS else chance.sample(range(QUERIES), QUERIES)
        hardest = by_ease[round(QUERIES * (1 - heads.hard)) :]
        self._bad = [bad(chance, quality, QUERIES, hardest) for quality in of]
        self._easy = [set(by_ease[: round(QUERIES * first)]) for first in (heads.candidate, heads.live)]
        self._bad[0]["fallback_rate"] |= set(range(traffic.frequent))
        self._seen: list[list[set[int]]] = [[set() for _ in range(traffic.processes)] for _ in of]
        self._again: list[list[set[int]]] = [[set() for _ in range(traffic.processes)] for _ in of]
        self._explored = heads.explored
        self._offset = chance.random()

    def step(self, found: Sequence[Requests], of: Sequence[Quality], share: float) -> None:
        """Add the requests of a step to those of candidate and live release."""
        del of  # their queries' outcomes do not change
        each, pool, points, offset = (
            self._traffic.requests // self._traffic.processes,
            _pool(),
            _points(),
            self._offset,
        )
        for process in range(self._traffic.processes):
            if self._chance.random() < self._traffic.replaced:
                for seen, again in zip(self._seen, self._again, strict=True):
                    seen[process], again[process] = set(), set()
            place = self._chance.randrange(_POOL - each)
            times = Counter(pool[place : place + each])
            once, twice = set(times), {query for query, number in times.items() if number > 1}
            # As in the route: a query stays with the candidate while its share grows.
            mine = {query for query in once if (points[query] + offset) % 1.0 < share}
            for requests, queries, faults, easy, seen, again in zip(
                found, (mine, once - mine), self._bad, self._easy, self._seen, self._again, strict=True
            ):
                new = queries - seen[process]
                # Seen twice in this step, or before it and now.
                second = ((queries & twice) | (queries - new)) - again[process]
                requests.processes += bool(new) and not seen[process]
                requests.repeated += len(second)
                seen[process] |= new
                again[process] |= second
                self._count(requests, new, {query: times[query] for query in queries}, faults, easy)

    def _count(
        self,
        requests: Requests,
        new: set[int],
        times: Mapping[int, int],
        faults: Mapping[str, set[int]],
        easy: set[int],
    ) -> None:
        """Count the requests of a process, by query, and its new queries."""
        explored = {query for query in sorted(new & easy) if self._chance.random() < self._explored}
        for sample, queries in ((requests.explored, explored), (requests.left, new - easy)):
            sample.add(len(queries), {rate: len(queries & faulty) for rate, faulty in faults.items()})
        requests.by_head += len(new & easy) - len(explored)
        for query, number in times.items():
            asked = self._chance.binomialvariate(number, self._explored) if query in easy else number
            requests.requests += asked
            requests.fallbacks += asked * (query in faults["fallback_rate"])
            requests.head_answers += number - asked


def bad(
    chance: random.Random, quality: Quality, size: int, hardest: Sequence[int] | None = None
) -> dict[str, set[int]]:
    """Return the numbers of those, of `size`, to which a release gives no good answer, by rate.

    All fallbacks are among the hardest.
    """
    rates = quality.rates
    number = chance.binomialvariate(size, rates["fallback_rate"])
    fallbacks = chance.sample(hardest or range(size), number)
    part = rates["invalid_output_rate"] / (rates["fallback_rate"] or 1.0)
    errors = chance.sample(range(size), chance.binomialvariate(size, rates["error_rate"]))
    invalid = fallbacks[: chance.binomialvariate(len(fallbacks), part)]
    return dict(zip(RATES, (set(errors), set(fallbacks), set(invalid)), strict=True))


@cache
def _pool() -> Sequence[int]:
    weights = list(accumulate(1 / (rank + 1) for rank in range(QUERIES)))
    return random.Random(1).choices(range(QUERIES), cum_weights=weights, k=_POOL)  # noqa: S311


@cache
def _points() -> Sequence[float]:
    chance = random.Random(2)  # noqa: S311
    return [chance.random() for _ in range(QUERIES)]


@dataclass(frozen=True)
class Rows:
    """Rows of a hold-out set in the order of the probes, which go round."""

    places: Sequence[int]
    size: int

    @classmethod
    def of(cls, places: Iterable[int], size: int) -> Rows:
        """Return some rows of a hold-out set."""
        return cls(sorted(places), size)

    def among(self, start: int, number: int) -> int:
        """Return how many of these are among `number` rows from `start` on.

        >>> Rows.of([0, 3], 4).among(3, 3)
        2
        """
        return self._before(start + number) - self._before(start)

    def _before(self, place: int) -> int:
        rounds, rest = divmod(place, self.size)
        return rounds * len(self.places) + bisect_left(self.places, rest)


@cache
def slow_pairs(slower: float, sigma: float, margin: float) -> Sequence[int]:
    """Return, for each number of probes, in how many of the first ones the candidate took too long.

    Latencies are log-normal; the candidate's mean is `slower` times the live release's.
    """
    chance = random.Random(3)  # noqa: S311
    # With this mean of the logarithm, the mean is 1.
    mean = -sigma * sigma / 2

    def answer(milliseconds: float) -> Answer:
        return Answer(latency_ms=milliseconds * chance.lognormvariate(mean, sigma))

    pairs = ((answer(MILLISECONDS * slower), answer(MILLISECONDS)) for _ in range(_POOL // 5))
    return list(accumulate((int(mine.slower_than(live, margin).bad) for mine, live in pairs), initial=0))
