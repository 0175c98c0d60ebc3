"""What the gate accepts and refuses, simulated with its own functions and a fixed seed.

    python -m benchmarks.gate

Rows come in families, as in data/holdout.jsonl. Two models differ in a part of the rows, and a family's rows
are alike with the correlation that `power.py` assumes.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda"))

from distilled_router.data.conversation import examples
from distilled_router.data.similarity import families
from distilled_router.release.gate import Gate
from distilled_router.release.power import DISCORDANT_SHARE, FAMILY_CORRELATION, accepted, effective_rows
from distilled_router.release.power import passes as probability
from distilled_router.task.task import Task
from evaluation.contenders import CANDIDATE, Contender, constants
from evaluation.gate import Comparison, Evidence, checks, part_checks
from evaluation.intervals import BOUNDS, Estimate, means
from evaluation.metrics import METRICS, Answer, Question
from evaluation.parts import Part, weak
from evaluation.questions import HOLDOUT
from evaluation.score_and_gate import report_of
from evaluation.scored import SHARES, Scored

SEED = 20261129
RUNS = 2_000
ROWS = (100, 200, 500, 1_000, 2_000)
LOSSES = (0.0, 0.03, 0.05, 0.08)
DISCORDANCES = (0.05, 0.1, 0.25)
RELEASES = 10
GOOD, ACCURACIES = 0.9, (0.8, 0.7, 0.6, 0.5, 0.4)
PART_ROWS = (10, 25, 60, 100)
GATE = Gate(
    minimum_valid_output=0.0,
    minimum_dominant_accuracy=0.0,
    maximum_mean_absolute_error=1.0,
    minimum_examples=1,
)
MARGIN, ERROR_MARGIN = GATE.non_inferiority_margin, GATE.error_margin
DATA = Path(__file__).parents[1] / "data" / "holdout.jsonl"
SURE = Estimate(1.0, 1.0, 1.0, 1)
# Besides families like the sample's: each row alone, and one family of 51 among single rows.
ALONE, ONE_LARGE = "each row alone", "one of 51 among single rows"


def main() -> None:
    """Print all tables."""
    chance = random.Random(SEED)  # noqa: S311  # a simulation
    sizes = sample_sizes()
    _table("Not worse than the live release: share of candidates that pass", _not_worse(chance, sizes))
    _table("Worse by exactly the margin of five points: share that passes", _at_margin(chance, sizes))
    _table("Mean absolute error worse by exactly the margin of 0.02", _error_at_margin(chance, sizes))
    _table("Ten releases one after another, of 500 rows", _repeated(chance, sizes))
    _table("Answers that are always the same", _constant(chance))
    _table("Coverage of the 95 % interval of an accuracy of 90 %, 500 rows", _coverage(chance, sizes))
    _table("A limit of 70 % for the worst label or a slice: share that passes", _limited(chance, sizes))
    _table("Reports that name a part as weak, beside 500 rows at 90 %", _named(chance, sizes))


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


def scores(right: Sequence[float], chance: random.Random) -> dict[str, list[float]]:
    """Return the differences of all compared metrics; the errors differ by about ERROR_DEVIATION."""
    return {
        "valid_output": [0.0] * len(right),
        "dominant_accuracy": list(right),
        "mean_absolute_error": [chance.gauss(-0.2 * one, 0.02) for one in right],
    }


def passes(differences: Mapping[str, Mapping[str, Sequence[float]]], numbers: Sequence[int]) -> bool:
    """Return whether the gate passes a candidate with these differences to other releases."""
    releases = []
    for name, columns in differences.items():
        found = means(columns, numbers, shares=SHARES, paired=list(columns), confidence=BOUNDS)
        releases.append(Comparison(against=name, whose=name, differences=found))
    candidate = dict.fromkeys([*METRICS, "balanced_accuracy", "latency_p95_ms"], SURE)
    evidence = Evidence(questions=len(numbers), candidate=candidate, groups=4, releases=releases)
    return all(check.ok for check in checks(GATE, evidence))


def passed_before(values: Sequence[float]) -> bool:
    """Return whether the rule before would pass it: refused if the whole 95 % interval is beyond 0.02."""
    return fmean(values) + 1.96 * pstdev(values) / math.sqrt(len(values)) >= -0.02


def _not_worse(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield ("rows", "independent", *(f"loss {100 * loss:.0f}" for loss in LOSSES), "told", "before: loss 5")
    for rows in ROWS:
        found, before, counted = [], 0, 0.0
        for loss in LOSSES:
            passed = 0
            for _ in range(RUNS):
                numbers = grouped(rows, sizes, chance)
                counted += effective_rows(Counter(numbers).values()) / RUNS / len(LOSSES)
                right = alike(numbers, differing(loss, chance), chance)
                passed += passes({"live": scores(right, chance)}, numbers)
                before += loss == MARGIN and passed_before(right)
            found.append(passed / RUNS)
        told = [
            probability(counted, MARGIN, ERROR_MARGIN) if loss == 0 else accepted(counted, loss, MARGIN)
            for loss in LOSSES
        ]
        words = " / ".join(f"{100 * one:.0f}" for one in told)
        yield rows, round(counted), *map(_percent, found), f"{words} %", _percent(before / RUNS)


def _at_margin(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield "families", "rows", *(f"differ in {100 * share:.0f} %" for share in DISCORDANCES)
    for name, correlation, rows in _worlds():
        found = []
        for discordance in DISCORDANCES:
            passed = 0
            for _ in range(RUNS):
                numbers = _families(name, rows, sizes, chance)
                right = alike(numbers, differing(MARGIN, chance, discordance), chance, correlation)
                passed += passes({"live": {"dominant_accuracy": right}}, numbers)
            found.append(_percent(passed / RUNS, 1))
        yield _world(name, correlation), rows, *found


def _error_at_margin(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    shapes: dict[str, Callable[[], float]] = {
        "normal": lambda: chance.gauss(ERROR_MARGIN, 0.08),
        "0.2 in a tenth of the rows": lambda: 0.2 * (chance.random() < 0.1),
        "0.5 in 4 % of the rows": lambda: 0.5 * (chance.random() < 0.04),
    }
    yield "families", "rows", *shapes
    for name, correlation, rows in _worlds():
        found = []
        for draw in shapes.values():
            passed = 0
            for _ in range(RUNS):
                numbers = _families(name, rows, sizes, chance)
                errors = alike(numbers, draw, chance, correlation)
                passed += passes({"live": {"mean_absolute_error": errors}}, numbers)
            found.append(_percent(passed / RUNS, 1))
        yield _world(name, correlation), rows, *found


def _worlds() -> Iterator[tuple[str, float, int]]:
    for name, correlation in ((ALONE, 0.0), ("", 0.3), ("", 0.6), (ONE_LARGE, 0.3)):
        for rows in ROWS[1:4]:
            yield name, correlation, rows


def _world(name: str, correlation: float) -> str:
    return f"{name or 'as in the sample data'}, correlation {correlation:g}"


def _families(name: str, rows: int, sizes: Sequence[int], chance: random.Random) -> list[int]:
    if name == ONE_LARGE:
        return [*[0] * 51, *range(1, rows - 50)]
    return grouped(rows, [1] if name == ALONE else sizes, chance)


def _repeated(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    """Yield what happens to releases of one hold-out set.

    Four of five rows are easy, a tenth too hard, and a tenth is right by luck, so that equal releases differ
    in 5 % of the rows. A worse release fails in more rows, and in those in which the live one does.
    """
    yield "each release", "compared with", "accepted of 10", "points lost in the end", "more than 6 lost"
    for loss in (0.0, 0.03):
        for compared in (["live"], ["live", "best"]):
            accepted_, lost = [], []
            for _ in range(RUNS // 10):
                numbers = grouped(500, sizes, chance)
                kinds, losses = (alike(numbers, chance.random, chance) for _ in range(2))
                known: dict[str, tuple[list[float], float]] = {}
                count = 0
                for _ in range(RELEASES + 1):
                    worse = known["live"][1] + loss if known else 0.0
                    lucky = alike(numbers, chance.random, chance)
                    right = [
                        float(kind < 0.8 or (kind < 0.9 and luck < 0.5)) if lose >= worse else 0.0
                        for kind, luck, lose in zip(kinds, lucky, losses, strict=True)
                    ]
                    beside = {
                        name: scores(
                            [one - two for one, two in zip(right, known[name][0], strict=True)], chance
                        )
                        for name in compared
                        if name in known
                    }
                    if not known or passes(beside, numbers):
                        count += bool(known)
                        known["live"] = right, worse
                        if "best" not in known or sum(right) > sum(known["best"][0]):
                            known["best"] = right, worse
                accepted_.append(count)
                lost.append(known["live"][1])
            many = sum(one > 0.06 for one in lost) / len(lost)
            yield (
                "equal" if not loss else "3 points worse",
                " and ".join(compared),
                f"{fmean(accepted_):.1f}",
                f"{100 * fmean(lost):.1f}",
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
            scored = [Scored(Contender(name=CANDIDATE, title=name), answers, questions, task)]
            for one in constants((question.reference for question in questions), task):
                given = {question.id: Answer(question.id, one.weights) for question in questions}
                scored.append(Scored(one, given, questions, task))
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
    yield "families", "correlation", "by family", "by row"
    for name, correlation in ((ALONE, 0.0), ("", 0.3), ("", 0.8), (ONE_LARGE, 0.3)):
        by_family = by_row = 0
        for _ in range(RUNS):
            numbers = _families(name, 500, sizes, chance)
            values = {"x": alike(numbers, lambda: float(chance.random() < 0.9), chance, correlation)}
            found = means(values, numbers, shares=["x"])["x"]
            before = means(values, shares=["x"])["x"]
            by_family += found.low <= 0.9 <= found.high
            by_row += before.low <= 0.9 <= before.high
        yield (
            name or "as in the sample data",
            correlation,
            _percent(by_family / RUNS),
            _percent(by_row / RUNS),
        )


def _limited(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield "labels", "rows each", "all at 90 %", *(f"one at {100 * one:.0f} %" for one in ACCURACIES)
    gate = replace(GATE, minimum_worst_label_accuracy=0.7)
    for labels in (1, 4, 20):
        for rows in PART_ROWS:
            found = []
            for accuracy in (GOOD, *ACCURACIES):
                passed = 0
                for _ in range(RUNS):
                    parts = [_part(GOOD, rows, sizes, chance) for _ in range(labels - 1)]
                    parts.append(_part(accuracy, rows, sizes, chance))
                    passed += all(check.ok for check in part_checks(gate, parts))
                found.append(_percent(passed / RUNS))
            yield labels, rows, *found


def _named(chance: random.Random, sizes: Sequence[int]) -> Iterator[Sequence[object]]:
    yield "rows of a part", "any of ten at 90 %", *(f"one at {100 * one:.0f} %" for one in ACCURACIES)
    for rows in PART_ROWS:
        found = []
        for accuracy, count in ((GOOD, 10), *((one, 1) for one in ACCURACIES)):
            named = 0
            for _ in range(RUNS):
                whole = {"dominant_accuracy": _part(GOOD, 500, sizes, chance).score}
                parts = [_part(accuracy, rows, sizes, chance) for _ in range(count)]
                named += bool(weak(parts, whole, GATE))
            found.append(_percent(named / RUNS, 1))
        yield rows, *found


def _part(accuracy: float, rows: int, sizes: Sequence[int], chance: random.Random) -> Part:
    """Return a label with so many rows, in families, of which the candidate answers this share rightly."""
    numbers = grouped(rows, sizes, chance)
    right = alike(numbers, lambda: float(chance.random() < accuracy), chance)
    score = means({"x": right}, numbers, shares=["x"])["x"]
    return Part(kind="label", name="a label", metric="dominant_accuracy", score=score, questions=rows)


def _percent(share: float, decimals: int = 0) -> str:
    return f"{100 * share:.{decimals}f} %"


def _table(title: str, rows: Iterator[Sequence[object]]) -> None:
    head = [str(cell) for cell in next(rows)]
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for row in islice(rows, 100):
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
