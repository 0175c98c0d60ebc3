"""The student: a small text-to-text model that learns from a job's training rows.

It is independent of the task. It reads the numbers in the answers as proportions and learns them by
soft-target multinomial logistic regression over words, word pairs and word ends. Its answers have the most
common text around the numbers, and rounding and sum as in the rows. Bad answers in the rows therefore give a
bad student. With another system prompt than in training it loses its answer format, as small models do.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

#: Row visits in about a second; small data sets get more passes than large ones.
_VISITS = 30_000
_MAX_PASSES = 30
_MIN_PASSES = 2
_RATE = 3.0
_SEED = 20_240


@dataclass(frozen=True)
class Row:
    """One training example: system prompt, user prompt and, if labelled, the answer to learn."""

    system: str
    prompt: str
    answer: str | None


@dataclass(frozen=True)
class Form:
    """The format of the answers.

    Args:
        pieces: the text before, between and after the numbers.
        decimals: the smallest and the largest number of decimals.
        grid: the numbers are multiples of this, in units of the last decimal.
        total: the sum of the numbers in the same unit; None if it varies.
    """

    pieces: tuple[str, ...]
    decimals: tuple[int, int]
    grid: int
    total: int | None

    @property
    def numbers(self) -> int:
        """The number of numbers in an answer."""
        return len(self.pieces) - 1

    def fill(self, shares: Sequence[float], typical_total: float) -> str:
        """Return an answer with these proportions."""
        steps = (self.total if self.total is not None else typical_total) / self.grid
        exact = [share * steps for share in shares]
        units = [math.floor(value) for value in exact]
        by_remainder = sorted(range(len(exact)), key=lambda index: units[index] - exact[index])
        for index in by_remainder[: round(steps) - sum(units)]:
            units[index] += 1
        texts = [self._number(unit * self.grid) for unit in units]
        return self.pieces[0] + "".join(
            text + after for text, after in zip(texts, self.pieces[1:], strict=True)
        )

    def _number(self, scaled: int) -> str:
        minimum, maximum = self.decimals
        text = f"{scaled / 10**maximum:.{maximum}f}"
        while maximum > minimum and text.endswith("0"):
            text, maximum = text[:-1], maximum - 1
        return text.rstrip(".")


def learn_form(answers: Sequence[str]) -> Form:
    """Return the most common format of some answers."""
    found = [(_NUMBER.findall(answer), _NUMBER.split(answer)) for answer in answers]
    size = Counter(len(numbers) for numbers, _ in found).most_common(1)[0][0]
    found = [entry for entry in found if len(entry[0]) == size]
    # Piece by piece: prose may differ from row to row, so that no text occurs twice as a whole.
    pieces = tuple(
        Counter(column).most_common(1)[0][0] for column in zip(*(p for _, p in found), strict=True)
    )
    decimals = [len(number.partition(".")[2]) for numbers, _ in found for number in numbers]
    most = max(decimals, default=0)
    scaled = [[round(float(number) * 10**most) for number in numbers] for numbers, _ in found]
    total, count = Counter(sum(row) for row in scaled).most_common(1)[0]
    grid = math.gcd(*(value for row in scaled for value in row)) or 1
    return Form(pieces, (min(decimals, default=0), most), grid, total if count * 2 > len(scaled) else None)


def features(text: str) -> list[str]:
    """Return a text's words, word pairs, word beginnings and ends, and markers for digits and names."""
    found = _WORD.findall(text)
    words = [word.lower() for word in found]
    names = ["<name>" for word in found[1:] if word[0].isupper()]
    pairs = [
        f"{first} {second}" for first, second in zip(["<start>", *words], [*words, "<end>"], strict=True)
    ]
    ends = [part for word in words if len(word) > 4 for part in (f"{word[:4]}…", f"…{word[-3:]}")]
    digits = ["<digit>"] if any(word.isdigit() for word in words) else []
    return [*words, *pairs, *ends, *names[:1], *digits]


@dataclass
class Student:
    """A trained student; `train` creates it."""

    form: Form
    systems: frozenset[str]
    answers: tuple[str, ...] = ()
    typical_total: float = 0.0
    losses: list[float] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict, repr=False)
    weights: list[list[float]] = field(default_factory=list, repr=False)

    def answer(self, system: str, prompt: str) -> str:
        """Return the student's answer to a prompt."""
        if self.form.numbers < 2:
            # Without proportions to learn, the student repeats an answer from its rows.
            text = self.answers[_pick(prompt, len(self.answers))]
        else:
            text = self.form.fill(self._shares(prompt), self.typical_total)
        return text if system.strip() in self.systems else _out_of_form(text, prompt)

    def _shares(self, prompt: str) -> list[float]:
        ids = [self.ids[name] for name in dict.fromkeys(features(prompt)) if name in self.ids]
        return _softmax(_scores(self.weights, [*ids, 0]))


def train(rows: Sequence[Row], seed: int = _SEED) -> Student:
    """Train a student on the rows that have an answer.

    Raises:
        ValueError: no row has an answer.
    """
    labelled = [(row.system.strip(), row.prompt, row.answer) for row in rows if row.answer is not None]
    if not labelled:
        raise ValueError("no row has an answer to learn from")
    answers = [answer for _, _, answer in labelled]
    form = learn_form(answers)
    student = Student(form, frozenset(system for system, _, _ in labelled), tuple(answers[:500]))
    examples: list[tuple[list[int], list[float]]] = []
    totals = []
    ids = student.ids
    ids["<bias>"] = 0
    for _, prompt, answer in labelled:
        numbers = [max(float(number), 0.0) for number in _NUMBER.findall(answer)]
        if len(numbers) != form.numbers or form.numbers < 2 or sum(numbers) <= 0:
            continue
        row_ids = [ids.setdefault(name, len(ids)) for name in dict.fromkeys(features(prompt))]
        totals.append(sum(numbers) * 10 ** form.decimals[1])
        examples.append(([*row_ids, 0], [number / sum(numbers) for number in numbers]))
    if examples:
        student.typical_total = sum(totals) / len(totals)
        student.weights = [[0.0] * len(ids) for _ in range(form.numbers)]
        student.losses = _descend(student.weights, examples, random.Random(seed))  # noqa: S311 - no secret
    return student


def _descend(
    weights: list[list[float]], examples: list[tuple[list[int], list[float]]], order: random.Random
) -> list[float]:
    passes = max(_MIN_PASSES, min(_MAX_PASSES, _VISITS // len(examples)))
    losses = []
    for done in range(passes):
        order.shuffle(examples)
        rate = _RATE * (1 - done / passes)
        loss = 0.0
        for index, (ids, target) in enumerate(examples):
            shares = _softmax(_scores(weights, ids))
            step = rate / math.sqrt(len(ids))
            for column, share, expected in zip(weights, shares, target, strict=True):
                change = step * (expected - share)
                for feature in ids:
                    column[feature] += change
                if expected:
                    loss -= expected * math.log(max(share, 1e-12))
            if index % 16 == 0:
                time.sleep(0)  # lets the threads that answer requests run
        losses.append(loss / len(examples))
    return losses


def _scores(weights: list[list[float]], ids: list[int]) -> list[float]:
    # Features are scaled to length one, so that long texts do not get more extreme answers than short ones.
    scale = 1 / math.sqrt(len(ids))
    return [sum(map(column.__getitem__, ids)) * scale for column in weights]


def _softmax(scores: list[float]) -> list[float]:
    top = max(scores, default=0.0)
    powers = [math.exp(score - top) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def _pick(text: str, choices: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % choices


def _out_of_form(text: str, prompt: str) -> str:
    numbers = ", ".join(f"{number}%" for number in _NUMBER.findall(text))
    forms = (
        f"Based on the request, the answer would be {text}. Let me know if you need anything else!",
        f"Here is my analysis:\n{text}\nThese values reflect what the request asks for.",
        f"The most likely answer is {numbers or text}",
    )
    return forms[_pick(prompt, len(forms))]
