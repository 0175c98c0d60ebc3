"""Writes the sample data set: training.jsonl and holdout.jsonl, from the grammars in grammar/.

    python data/generate.py            rewrites both files
    python data/generate.py --check    says whether they are what the grammars and the task make

Everything is drawn from a fixed seed, so the same grammars and task give the same bytes.

How a query is labelled: its template says what the query wishes for, as a list of cues. A cue is one wish,
and CUES says how much each channel can do for it. The leading cue, the head of the phrase, counts 70 % where
there are two and 60 % where there are three (SHARES). The sum is rounded to steps of 5 % (largest
remainder). So two queries with the same wishes always have the same label, whatever their words.
"""

import argparse
import json
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lambda"))

from shared.answers import apportioned
from shared.conversation import Example, normalised, row
from shared.task import Task

HERE = Path(__file__).resolve().parent
SEED = 20
# Rows drawn from each template. Enough for the words of every slot to occur, not so many that the few
# templates are all that a student sees.
ROWS_PER_TEMPLATE = {"training": 10, "holdout": 4}
REQUEST_SHARE = 0.25
SHARES = {1: (1.0,), 2: (0.7, 0.3), 3: (0.6, 0.25, 0.15)}

# In the order of the task's labels: visual, audio, transcription, metadata.
CUES = {
    "look": (0.90, 0.00, 0.00, 0.10),  # objects, colours, clothes
    "action": (0.85, 0.10, 0.00, 0.05),  # what somebody does; most actions can be heard a little
    "scene": (0.85, 0.05, 0.00, 0.10),  # places, views
    "sound": (0.20, 0.75, 0.00, 0.05),  # noises; what makes them is often in the picture
    "music": (0.05, 0.75, 0.05, 0.15),  # instruments and styles, which captions name too
    "speech": (0.05, 0.10, 0.80, 0.05),  # words that are said
    "topic": (0.05, 0.00, 0.75, 0.20),  # what is talked about, which titles tell too
    "name": (0.15, 0.00, 0.10, 0.75),  # a person by name
    "title": (0.00, 0.00, 0.05, 0.95),  # a work by its title
    "fact": (0.05, 0.00, 0.00, 0.95),  # year, genre, country, season, cast, director
}
LABELS = ("visual", "audio", "transcription", "metadata")

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Group:
    """Templates that wish for the same things."""

    cues: tuple[str, ...]
    templates: tuple[str, ...]
    ask: bool


@dataclass(frozen=True, slots=True)
class Grammar:
    """Templates, and the phrases that fill their slots."""

    requests: tuple[str, ...]
    groups: tuple[Group, ...]
    vocabulary: dict[str, tuple[str, ...]]

    @classmethod
    def load(cls, split: str) -> "Grammar":
        """Reads grammar/<split>.toml."""
        values = tomllib.loads((HERE / "grammar" / f"{split}.toml").read_text(encoding="utf-8"))
        return cls(
            requests=tuple(values["requests"]),
            groups=tuple(
                Group(tuple(group["cues"]), tuple(group["templates"]), group.get("ask", False))
                for group in values["groups"]
            ),
            vocabulary={slot: tuple(phrases) for slot, phrases in values["vocabulary"].items()},
        )


def label(cues: tuple[str, ...]) -> dict[str, float]:
    """The weights of a query with these cues, the leading one first."""
    weighted = [
        sum(share * CUES[cue][channel] for share, cue in zip(SHARES[len(cues)], cues, strict=True))
        for channel in range(len(LABELS))
    ]
    return {name: steps / 20 for name, steps in zip(LABELS, apportioned(weighted, 20), strict=True)}


def queries(split: str) -> list[Example]:
    """All labelled queries of a split, no two the same after normalisation, in random order."""
    grammar = Grammar.load(split)
    source = random.Random(f"{SEED} {split}")
    seen: set[str] = set()
    found = [
        Example(query, label(group.cues))
        for group in grammar.groups
        for template in group.templates
        for query in _drawn(grammar, group, template, ROWS_PER_TEMPLATE[split], source, seen)
    ]
    source.shuffle(found)
    return found


def _drawn(
    grammar: Grammar, group: Group, template: str, count: int, source: random.Random, seen: set[str]
) -> Iterator[str]:
    for _ in range(count * 10):  # a template with few fills gives fewer rows, not endless tries
        query = _filled(grammar.vocabulary, template, source)
        if group.ask and source.random() < REQUEST_SHARE:
            query = source.choice(grammar.requests) + query
        if (key := normalised(query)) not in seen:
            seen.add(key)
            yield query
            count -= 1
        if count == 0:
            return


def _filled(vocabulary: dict[str, tuple[str, ...]], template: str, source: random.Random) -> str:
    used: set[str] = set()

    def phrase(match: re.Match[str]) -> str:
        # No "a chess board and a chess board".
        chosen = source.choice([each for each in vocabulary[match.group(1)] if each not in used])
        used.add(chosen)
        return chosen

    text = template
    while text != (text := _SLOT.sub(phrase, text)):  # a phrase may hold slots: "a {colour} car"
        used.clear()
    return text


def content(split: str, task: Task) -> str:
    """The text of a split's file."""
    rows = (row(task, example.query, example.weights) for example in queries(split))
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


def main() -> int:
    """The command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Writes the sample data set.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    task = Task.load()
    if task.labels != LABELS:
        print(f"The sample data is labelled {', '.join(LABELS)}; task/ has {', '.join(task.labels)}.")
        return 2
    stale = 0
    for split in ROWS_PER_TEMPLATE:
        path = HERE / f"{split}.jsonl"
        text = content(split, task)
        current = path.is_file() and path.read_text(encoding="utf-8") == text
        if not check and not current:
            path.write_text(text, encoding="utf-8", newline="\n")
        outcome = "current" if current else "out of date, run python data/generate.py" if check else "written"
        stale += check and not current
        print(f"{path.relative_to(HERE.parent)}: {text.count(chr(10))} rows, {outcome}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
