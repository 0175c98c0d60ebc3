"""The routing task: its labels, its prompts, and the text format of its answers.

A task is data (the folder `task/`), so a team can route something else without changing code. Functions,
stacks and tests read it through this module.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from distilled_router.links import inside
from distilled_router.task.parsing import AnswerReader, InvalidOutput, apportioned, weights_problem

__all__ = [
    "DEFER_FILE",
    "FILES",
    "FORMATS",
    "RESERVED_WORDS",
    "ROBUSTNESS_FILE",
    "InvalidOutput",
    "Task",
    "TaskError",
    "default_folder",
    "reserved_word",
]

FILES = ("task.toml", "teacher_prompt.txt", "student_prompt.txt")
"""The files of a task's folder. Functions get these only; data sets and notes may lie beside them."""

ROBUSTNESS_FILE = "robustness.toml"
"""Optional file of the folder: variants of queries for the evaluation. No model depends on it."""

DEFER_FILE = "defer.txt"
"""Optional file of the folder: texts that are no query, for the classification head."""

FORMATS = ("compact", "json")

# A training job fails if a prompt contains one of these. The first seven are documented for Nova fine-tuning;
# AWS's published validator refuses the others.
RESERVED_WORDS = (
    *("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]"),
    *("USER:", "BOT:", "ASSISTANT:", "SYSTEM:", "Thought:", "<unk>"),
)
_RESERVED = re.compile("|".join(map(re.escape, RESERVED_WORDS)))

_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_LABEL_RULE = "lower-case letters, digits, - and _, at most 40, beginning with a letter"


class TaskError(ValueError):
    """The task folder can't be used. The message says what to correct."""


def reserved_word(text: str) -> str | None:
    """Return the first reserved word of Bedrock's training format in `text`, or None."""
    if ":" not in text and "<" not in text and "[" not in text:
        return None  # ten times faster than the search, and enough for nearly every text
    found = _RESERVED.search(text)
    return found.group() if found else None


@dataclass(frozen=True, kw_only=True)
class Task:
    """One routing task. Immutable; see `load`.

    Example:
        >>> task = Task.load()
        >>> task.parse("85 0 5 10")["visual"]
        0.85
    """

    name: str
    labels: tuple[str, ...]
    format: str
    max_query_characters: int
    static_weights: dict[str, float]
    teacher_prompt: str
    student_prompt: str

    def __post_init__(self) -> None:
        if problems := list(_problems(self)):
            raise TaskError("; ".join(problems))

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Read and validate a task folder.

        Args:
            folder: Contains the FILES. Default: `task/` beside this package, as in a function's bundle, or
                else the project's `task/`.

        Raises:
            TaskError: A file is missing or invalid. The message names the folder and every problem.
        """
        folder = folder or default_folder()
        toml, teacher, student = (_text(folder, file) for file in FILES)
        prompts: dict[str, Any] = {"teacher_prompt": teacher.strip(), "student_prompt": student.strip()}
        try:
            values = tomllib.loads(toml)
        except ValueError as error:
            raise TaskError(f"{folder / FILES[0]}: {error}") from error
        expected = {field.name for field in fields(cls)} - prompts.keys()
        if values.keys() != expected:
            differing = ", ".join(sorted(values.keys() ^ expected))
            raise TaskError(f"{folder / FILES[0]}: missing or unknown: {differing}")
        if isinstance(values["labels"], list):
            values["labels"] = tuple(values["labels"])
        try:
            return cls(**values, **prompts)
        except TaskError as error:
            raise TaskError(f"{folder}: {error}") from error

    def parse(self, text: str) -> dict[str, float]:
        """Read the weights in a model's answer, in either format.

        Accepts what models write: code fences, prose, percent signs, separators, a missing leading zero,
        percents instead of fractions, extra keys, JSON without zero weights, sums up to 5 % off.

        Returns:
            A finite weight from 0 to 1 for every label; their sum is 1.

        Raises:
            InvalidOutput: The text contains no such weights.
        """
        return self._reader.read(text)

    def render(self, weights: Mapping[str, float], format: str | None = None) -> str:  # noqa: A002 - the task's own word
        """Return weights as text in a format: whole percents that sum to 100, or JSON. Default: the task's.

        Raises:
            ValueError: Labels are missing or unknown, the weights don't sum to 1, or the format is unknown.
        """
        if problem := weights_problem(weights, self.labels):
            raise ValueError(problem)
        format = format or self.format  # noqa: A001 - as above
        if format == "compact":
            return " ".join(map(str, apportioned([weights[label] for label in self.labels], 100)))
        if format == "json":
            parts = apportioned([weights[label] for label in self.labels], 10_000)
            return json.dumps({label: part / 10_000 for label, part in zip(self.labels, parts, strict=True)})
        raise ValueError(f"format {format!r}, expected one of {', '.join(FORMATS)}")

    def most_tokens(self, format: str | None = None) -> int:  # noqa: A002 - as above
        """Return the limit of tokens for an answer.

        It is the number of characters of the longest answer, since a token has at least one, and 5 more for
        the answer's end and a few added words, which are then parsed and not cut off.

        Four compact weights have at most 11 characters, "25 25 25 25", and so at most 12 tokens with the end.
        """
        if (format or self.format) == "json":
            longest = json.dumps(dict.fromkeys(self.labels, 0.1234))  # `render` writes four digits at most
        else:
            # Two digits each while their sum allows: more than ten tens are over 100.
            longest = " ".join("10" if index < 10 else "0" for index in range(len(self.labels)))
        return len(longest) + 5

    def written_as_asked(self, text: str) -> bool:
        """Return whether `text` is an answer in exactly the task's format, which `parse` does not require.

        Training labels must be, since the student copies their form.
        """
        try:
            if self.format == "compact":
                return self.render(self.parse(text)) == text
            # Pairs, to find a label that appears twice.
            pairs = json.loads(text, object_pairs_hook=tuple)
            values = dict(pairs)
        except (ValueError, TypeError, RecursionError):
            return False
        return (
            isinstance(pairs, tuple)
            and tuple(name for name, _ in pairs) == self.labels
            and all(type(value) in (int, float) for value in values.values())
            and weights_problem(values, self.labels, tolerance=1e-3) is None
        )

    def dominant(self, weights: Mapping[str, float]) -> str:
        """Return the label with the largest weight; of equal ones the first in label order."""
        tied = self.dominants(weights)
        return next(label for label in self.labels if label in tied)

    def dominants(self, weights: Mapping[str, float]) -> set[str]:
        """Return all labels that share the largest weight."""
        top = max(weights[label] for label in self.labels)
        return {label for label in self.labels if weights[label] >= top - 1e-9}

    def is_dominant_right(self, reference: Mapping[str, float], weights: Mapping[str, float]) -> bool:
        """Return whether the answer's dominant label is the reference's, or one of its tied labels."""
        return self.dominant(weights) in self.dominants(reference)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of what a model of this task depends on: labels, format and both prompts.

        Static weights and the maximum query length concern the router only: changing them needs no new model.
        """
        values = [self.labels, self.format, self.teacher_prompt, self.student_prompt]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def teacher_digest(self) -> str:
        """Return the SHA-256 (hex) of what decides a teacher's answers: the labels and its prompt."""
        return hashlib.sha256(json.dumps([self.labels, self.teacher_prompt]).encode()).hexdigest()

    @cached_property
    def _reader(self) -> AnswerReader:
        return AnswerReader(self.labels)


def _problems(task: Task) -> Iterator[str]:
    """Yield each problem that makes a task unusable, mostly after edits of task.toml and the prompts."""
    labels = task.labels
    if not isinstance(task.name, str) or not _LABEL.fullmatch(task.name):
        yield f"name must be {_LABEL_RULE}; found {task.name!r:.60}"
    if not isinstance(labels, tuple):
        yield f"labels must be a list of lower-case names; found {labels!r:.60}"
        return
    if wrong := [each for each in labels if not isinstance(each, str) or not _LABEL.fullmatch(each)]:
        yield f"labels must be a list of lower-case names: {_LABEL_RULE}; found {wrong[0]!r:.60}"
        return
    different = len(set(labels))
    if not 2 <= len(labels) <= 20 or different < len(labels):
        yield f"labels must be 2 to 20 different names; found {len(labels)}, {different} of them different"
    if task.format not in FORMATS:
        yield f"format must be one of {', '.join(FORMATS)}"
    if type(task.max_query_characters) is not int or not 1 <= task.max_query_characters <= 10_000:
        yield "max_query_characters must be a whole number from 1 to 10000"
    weights = task.static_weights
    if not isinstance(weights, dict) or not all(type(value) in (int, float) for value in weights.values()):
        yield "static_weights must give every label a number"
    elif problem := weights_problem(weights, labels):
        yield f"static_weights: {problem}"
    for file, prompt in (("teacher_prompt", task.teacher_prompt), ("student_prompt", task.student_prompt)):
        if word := reserved_word(prompt):
            yield f"{file}.txt contains {word}, a reserved word on which a training job fails"
        if missing := [label for label in labels if _place(label, prompt) is None]:
            yield f"{file}.txt doesn't name {', '.join(missing)}"
    places = [_place(label, task.student_prompt) or 0 for label in labels]
    if task.format == "compact" and places != sorted(places):
        yield "student_prompt.txt must name the labels in their order, which is the order of its numbers"


def _place(label: str, prompt: str) -> int | None:
    """Return where a prompt first names a label as a whole word: `billing` does not name `bill`."""
    found = re.search(rf"(?<![\w-]){re.escape(label)}(?![\w-])", prompt)
    return found.start() if found else None


def _text(folder: Path, file: str) -> str:
    path = folder / file
    try:
        return inside(folder, file).read_text(encoding="utf-8")
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror}; a task's folder contains {', '.join(FILES)}") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def default_folder() -> Path:
    """Return the `task/` folder beside this package, as in a function's bundle, or else the project's."""
    root = Path(__file__).resolve().parents[2]
    bundled = root / "task"
    return bundled if (bundled / FILES[0]).is_file() else root.parent / "task"
