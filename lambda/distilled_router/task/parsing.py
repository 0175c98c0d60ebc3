"""Read weights from a model's text, check them and round them.

Models add code fences, prose and percent signs, write percents for fractions, and miss the sum a little. The
reader accepts all that, and returns only complete, finite weights that sum to 1. Its input is unchecked, so
every step takes linear time in a limited length.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# A teacher that reasons writes a few thousand characters. Longer or more deeply nested text is refused.
_LONGEST_ANSWER = 16_384
_MOST_BRACKETS = 64
_MOST_OBJECTS = 8
_SUM_TOLERANCE = 0.05

# Possessive quantifiers prevent backtracking.
_NUMBER = r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?+(?:\s?%)?+(?!\w)"
_RUN = re.compile(rf"(?<![\w.+-]){_NUMBER}(?:(?:\s*+[,;/|]\s*+|\s++){_NUMBER})*+", re.ASCII)
_VALUE = re.compile(rf"\s*+({_NUMBER})\s*+", re.ASCII)


class InvalidOutput(ValueError):  # noqa: N818 - an expected outcome that the router counts, not a fault
    """A model's text contains no usable weights. The message quotes at most 80 characters of it.

    `problem` quotes nothing.
    """

    def __init__(self, problem: str, text: object = None) -> None:
        self.problem = problem
        # ascii(): a lone surrogate in the message would break logging.
        excerpt = f": {ascii(text[:60])[:80]}" if isinstance(text, str) else ""
        super().__init__(problem + excerpt)


class AnswerReader:
    """Reads answers with weights for `labels`, in either format."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_int=float,  # int() raises on more than 4,300 digits, float() on what int() took
            parse_constant=_refuse,
        )
        # Longest first, so no label hides another that begins with it.
        names = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
        between = r"[\"'*`]*+\s*+(?:->|=>|[:=]|-(?=\s)|is\b)?+[\"'*`\s]*+"
        self._labelled = re.compile(
            rf"(?<![\w-])({names})(?![\w-]){between}({_NUMBER})", re.ASCII | re.IGNORECASE
        )

    def read(self, text: str) -> dict[str, float]:
        """Return a finite weight from 0 to 1 for every label; their sum is 1.

        Raises:
            InvalidOutput: The text contains no such weights, or several different ones.
        """
        if not isinstance(text, str):
            raise InvalidOutput(f"expected text, found {type(text).__name__}")
        words = text.split(None, len(self._labels))
        if len(words) == len(self._labels) and text.isascii() and len(text) < 100:
            percents = [int(word) for word in words if len(word) <= 3 and word.isdecimal()]
            if len(percents) == len(words) and sum(percents) == 100:
                return {label: number / 100 for label, number in zip(self._labels, percents, strict=True)}
        if len(text) > _LONGEST_ANSWER:
            raise InvalidOutput(f"answer of {len(text)} characters, at most {_LONGEST_ANSWER}", text)
        objects = list(self._objects(text))
        return (
            self._from_objects(objects, text)
            or self._from_labelled(text)
            or self._from_parts(objects, text)
            or self._from_run(text)
        )

    def _objects(self, text: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects that name labels, also within prose, at the top level or one below."""
        start = text.find("{")
        if start >= 0 and text.count("{") + text.count("[") > _MOST_BRACKETS:
            raise InvalidOutput(f"answer with more than {_MOST_BRACKETS} brackets", text)
        for _ in range(_MOST_OBJECTS):
            if start < 0:
                return
            try:
                value, end = self._decoder.raw_decode(text, start)
            except ValueError:
                end = start + 1
            else:
                for candidate in (value, *value.values()):
                    if isinstance(candidate, dict) and not candidate.keys().isdisjoint(self._labels):
                        yield candidate
            start = text.find("{", end)

    def _from_objects(self, objects: Iterable[dict[str, Any]], text: str) -> dict[str, float] | None:
        """Return the weights of objects with every label, or None."""
        found: dict[str, float] | None = None
        for values in objects:
            if all(label in values for label in self._labels):
                weights = self._scaled([values[label] for label in self._labels], text)
                found = _agreed(found, weights, text)
        return found

    def _from_parts(self, objects: Iterable[dict[str, Any]], text: str) -> dict[str, float] | None:
        """Return the weights of objects that leave out zeros, or None."""
        found: dict[str, float] | None = None
        for values in objects:
            try:
                weights = self._scaled([values.get(label, 0.0) for label in self._labels], text, tolerance=0)
            except InvalidOutput:
                continue
            found = _agreed(found, weights, text)
        return found

    def _from_labelled(self, text: str) -> dict[str, float] | None:
        """Return the weights of text such as `visual: 85%, audio is 0` or malformed JSON, or None."""
        values: dict[str, str] = {}
        for match in self._labelled.finditer(text):
            label, value = match.group(1).lower(), match.group(2)
            if values.setdefault(label, value) != value:
                raise InvalidOutput(f"several values for {label}", text)
        if len(values) < len(self._labels):
            return None
        return self._scaled([values[label] for label in self._labels], text)

    def _from_run(self, text: str) -> dict[str, float]:
        """Return the weights of as many consecutive numbers as there are labels."""
        found: dict[str, float] | None = None
        for run in _RUN.finditer(text):
            values = [match.group() for match in _VALUE.finditer(run.group())]
            if len(values) == len(self._labels):
                found = _agreed(found, self._scaled(values, text), text)
        if found is None:
            raise InvalidOutput(f"no {len(self._labels)} weights found", text)
        return found

    def _scaled(
        self, values: Sequence[object], text: str, tolerance: float = _SUM_TOLERANCE
    ) -> dict[str, float]:
        """Return weights that sum to 1, from fractions or percents that nearly sum to 1 or 100."""
        numbers, percent = [], False
        for value in values:
            number, marked = _number(value)
            if not 0 <= number <= 105:  # also refuses NaN
                raise InvalidOutput("a weight is not a number from 0 to 100", text)
            numbers.append(abs(number))  # no -0.0
            percent = percent or marked
        total = math.fsum(numbers)
        whole = 100.0 if percent or total > 2 else 1.0
        if abs(total - whole) > tolerance * whole + 1e-9:
            raise InvalidOutput(f"weights sum to {total:g} instead of {whole:g}", text)
        # Numbers whose sum is off by float rounding only keep their digits.
        divisor = whole if abs(total - whole) < 1e-9 * whole else total
        return {label: number / divisor for label, number in zip(self._labels, numbers, strict=True)}

    def _pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            name = key.strip().lower()
            if name in found and name in self._labels:
                raise ValueError(f"{name} twice")
            found[name] = value
        return found


def apportioned(shares: Sequence[float], whole: int) -> list[int]:
    """Split `whole` by `shares` into integers that sum to it exactly (largest remainder).

    No part is off by more than (n - 1) / n of a unit, the best that rounding with a fixed sum can do.
    """
    total = math.fsum(shares)
    # round(): 0.29 * 100 is 28.999999999999996, and must not lose its unit to a smaller remainder.
    exact = [round(share / total * whole, 9) for share in shares]
    parts = [int(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: whole - sum(parts)]:
        parts[index] += 1
    return parts


def weights_problem(
    weights: Mapping[str, float], labels: Sequence[str], tolerance: float = 1e-6
) -> str | None:
    """Return what is wrong with weights by code or a person, or None."""
    if weights.keys() != set(labels):
        return f"weights for {', '.join(map(str, weights))}, expected {', '.join(labels)}"
    if not all(0 <= value <= 1 + tolerance for value in weights.values()):
        return f"weights {list(weights.values())}, expected numbers from 0 to 1"
    total = math.fsum(weights.values())
    if abs(total - 1) > tolerance:
        return f"weights sum to {total:g}, expected 1"
    return None


def _agreed(found: dict[str, float] | None, weights: dict[str, float], text: str) -> dict[str, float]:
    if found is not None and weights != found:
        raise InvalidOutput("several different answers", text)
    return weights


def _number(value: object) -> tuple[float, bool]:
    """Return a weight as a number, and whether it has a percent sign. NaN for anything but a number."""
    if type(value) is float:
        return value, False
    if isinstance(value, str) and len(value) <= 40 and (match := _VALUE.fullmatch(value)):
        digits = match.group(1)
        return float(digits.rstrip("%").rstrip()), digits.endswith("%")
    return math.nan, False


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a weight")
