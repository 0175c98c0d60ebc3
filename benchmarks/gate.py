"""What the gate accepts and refuses, simulated with its own functions and a fixed seed.

    python -m benchmarks.gate

Rows come in families, as in data/holdout.jsonl. Two models differ in a part of the rows, and a family's rows
are alike with the correlation that `power.py` assumes.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda"))

from distilled_router.data.conversation import examples
from distilled_router.data.similarity import families
from distilled_router.release.gate import Gate
from distilled_router.release.power import DISCORDANT_SHARE, FAMILY_CORRELATION, accepted, effective_rows
from distilled_router.task.task import Task
from evaluation.contenders import CANDIDATE, Contender, constants
from evaluation.gate import Comparison, Evidence, checks
from evaluation.intervals import BOUNDS, Estimate, means
from evaluation.metrics import METRICS, Answer, Question
from evaluation.questions import HOLDOUT
from evaluation.score_and_gate import report_of
from evaluation.scored import Scored

SEED = 20261129
RUNS, RESAMPLES = 200, 100
ROWS = (100, 200, 500, 1_000, 2_000)
LOSSES = (0.0, 0.03, 0.05, 0.08)
RELEASES = 10
GATE = Gate(
    minimum_valid_output=0.0,
    minimum_dominant_accuracy=0.0,
    maximum_mean_absolute_error=1.0,
    minimum_examples=1,
)
DATA = Path(__file__).parents[1] / "data" / "holdout.jsonl"
SURE = Estimate(1.0, 1.0, 1.0, 1)


def main() -> None:
    """Print all tables."""
    chance = random.Random(SEED)  # noqa: S311  # a simulation
    sizes = sample_sizes()
    _table("Not worse than the live release: share of candidates that pass", _not_worse(chance, sizes))
    _table("Repeated releases, each truly worse by 3 points, of 500 rows", _repeated(chance, sizes))
    _table("Answers that are always the same", _constant(chance))
    _table("Coverage of the 95 % interval of an accuracy of 90 %, 500 rows", _coverage(chance, sizes))


def sample_sizes() -> list[int]:
    """Return the sizes of the sample hold-out set's families."""
    rows = list(examples(DATA.read_text(encoding="utf-8").splitlines(), Task.load()))
    numbers = families([row.query for row in rows])
    return [numbers.count(number) for number in dict.fromkeys(numbers)]


def grouped(rows: int, sizes: Sequence[int], chance: random.Random) -> list[int]:
    """Return the family of each row, with sizes drawn from these."""
    found: list[int] = []
    number = 0
    while len(found) < rows:
        found += [number] * chance.choice(sizes)
        number += 1
    return found[:rows]


def alike(
    numbers: Sequence[int],
    draw: Callable[[], float],
    chance: random.Random,
    correlation: float = FAMILY_CORRELATION,
) -> list[float]:
    """Return a value for each row; two rows of a family correlate by `correlation`."""
    shared: dict[int, float] = {}
    found = []
    for number in numbers:
        common = shared.setdefault(number, draw())
        found.append(common if chance.random() < correlation**0.5 else draw())
    return found


def differing(
    loss: float, chance: random.Random, discordance: float = DISCORDANT_SHARE
) -> Callable[[], float]:
    """Return a function that draws a row's difference between two models."""
    whole = max(discordance, loss)
    weights = ((whole + loss) / 2, (whole - loss) / 2, 1 - whole)
    return lambda: chance.choices((-1.0, 1.0, 0.0), weights)[0]


def passes(differences: Mapping[str, Sequence[float]], numbers: Sequence[int]) -> bool:
    """Return whether the gate passes a candidate with these differences to other releases."""
    releases = []
    for name, values in differences.items():
        column = {"dominant_accuracy": values}
        found = means(column, numbers, paired_shares=list(column), resamples=RESAMPLES, confidence=BOUNDS)
        releases.append(Comparison(against=name, whose=name, differences=found))
    candidate = dict.fromkeys([*METRICS, "balanced_accuracy", "latency_p95_ms"], SURE)
    evidence = Evidence(questions=len(numbers), candidate=candidate, groups=4, releases=releases)
    return all(check.ok for check in checks(GATE, evidence))


def passed_before(values: Sequence[float]) -> bool:
    """Return whether the rule before would pass it: refused if the whole 95 % interval is beyond 0.02."""
    return fmean(values) + 1.96 * pstdev(values) / math.sqrt(len(values)) >= -0.02


def _not_worse(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield ("rows", "independent", *(f"loss {100 * loss:.0f}" for loss in LOSSES), "approximation", "before")
    for rows in ROWS:
        found: list[float] = []
        before: list[float] = []
        counted = 0.0
        for loss in LOSSES:
            drawn = []
            for _ in range(RUNS):
                numbers = grouped(rows, sizes, chance)
                counted = effective_rows([numbers.count(one) for one in dict.fromkeys(numbers)])
                drawn.append((alike(numbers, differing(loss, chance), chance), numbers))
            found.append(sum(passes({"live": values}, numbers) for values, numbers in drawn) / RUNS)
            before.append(sum(passed_before(values) for values, _ in drawn) / RUNS)
        margin = GATE.non_inferiority_margin
        told = " / ".join(f"{accepted(counted, loss, margin):.0%}" for loss in LOSSES)
        yield rows, round(counted), *map(_percent, found), told, " / ".join(map(_percent, before))


def _repeated(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield "compared with", "accepted of 10", "points lost in the end", "more than 8 points lost"
    for name in ("live", "live and best"):
        accepted_, lost = [], []
        for _ in range(RUNS // 4):
            numbers = grouped(500, sizes, chance)
            best = live = [float(chance.random() < 0.9) for _ in numbers]
            total, count = 0.0, 0
            for _ in range(RELEASES):
                changes = alike(numbers, differing(0.03, chance), chance)
                candidate = [
                    min(1.0, max(0.0, one + change)) for one, change in zip(live, changes, strict=True)
                ]
                others = {"live": live, **({"best": best} if "best" in name else {})}
                compared = {
                    key: [mine - theirs for mine, theirs in zip(candidate, other, strict=True)]
                    for key, other in others.items()
                }
                if passes(compared, numbers):
                    live, total, count = candidate, total + 0.03, count + 1
            accepted_.append(count)
            lost.append(total)
        many = sum(one > 0.08 for one in lost) / len(lost)
        yield (
            name,
            f"{sum(accepted_) / len(accepted_):.1f}",
            f"{100 * sum(lost) / len(lost):.1f}",
            _percent(many),
        )


def _constant(chance: random.Random) -> Iterator[Sequence[object]]:
    yield "student", "dominant accuracy", "balanced accuracy", "passes"
    task = Task.load()
    students: dict[str, tuple[float, bool]] = {"always visual": (0.0, True), "trained": (0.05, False)}
    for name, (noise, is_constant) in students.items():
        runs, passed, right, balanced = 20, 0, 0.0, 0.0
        for _ in range(runs):
            questions = [_question(place, task, chance) for place in range(500)]
            answers = {
                one.id: Answer(
                    one.id, _weights(0, task, chance) if is_constant else _near(one, noise, chance)
                )
                for one in questions
            }
            first = next(iter(answers.values()))
            if is_constant:
                answers = {key: Answer(key, first.weights) for key in answers}
            scored = [Scored(Contender(name=CANDIDATE, title=name), answers, questions, task, RESAMPLES)]
            for one in constants((question.reference for question in questions), task):
                given = {question.id: Answer(question.id, one.weights) for question in questions}
                scored.append(Scored(one, given, questions, task, RESAMPLES))
            passed += report_of(scored, GATE, {})["passed"]
            right += scored[0].overall["dominant_accuracy"].value / runs
            balanced += scored[0].overall["balanced_accuracy"].value / runs
        yield name, _percent(right), _percent(balanced), f"{passed} of {runs}"


def _question(place: int, task: Task, chance: random.Random) -> Question:
    label = 0 if chance.random() < 0.92 else chance.randrange(1, len(task.labels))
    return Question(f"holdout-{place}", HOLDOUT, f"query {place}", _weights(label, task, chance))


def _weights(label: int, task: Task, chance: random.Random) -> dict[str, float]:
    return _scaled(
        {name: (3.0 if place == label else 0.3) + chance.random() for place, name in enumerate(task.labels)}
    )


def _near(question: Question, noise: float, chance: random.Random) -> dict[str, float]:
    found = dict(question.reference or {})
    if chance.random() < 0.1:  # a wrong dominant label
        found = dict(zip(found, chance.sample(list(found.values()), len(found)), strict=True))
    return _scaled({name: max(value + chance.gauss(0, noise), 0.001) for name, value in found.items()})


def _scaled(weights: Mapping[str, float]) -> dict[str, float]:
    whole = sum(weights.values())
    return {name: value / whole for name, value in weights.items()}


def _coverage(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield "families", "correlation", "by family", "by row (before)"
    for name, some, correlation in (
        ("each row alone", [1], 0.0),
        ("as in the sample data", sizes, 0.3),
        ("as in the sample data", sizes, 0.8),
        ("one of 51 among single rows", [1], 0.3),
    ):
        by_family = by_row = 0
        for _ in range(RUNS):
            numbers = grouped(500, some, chance)
            if name.startswith("one"):
                numbers[:51] = [0] * 51
            values = {"x": alike(numbers, lambda: float(chance.random() < 0.9), chance, correlation)}
            found = means(values, numbers, shares=["x"], resamples=RESAMPLES)["x"]
            before = means(values, resamples=RESAMPLES)["x"]
            by_family += found.low <= 0.9 <= found.high
            by_row += before.low <= 0.9 <= before.high
        yield name, correlation, _percent(by_family / RUNS), _percent(by_row / RUNS)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _table(title: str, rows: Iterator[Sequence[object]]) -> None:
    head = [str(cell) for cell in next(rows)]
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in islice(rows, 100):
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
