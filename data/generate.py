"""Writes the sample data set, training.jsonl, holdout.jsonl and queries.txt, from the grammars in grammar/.

    python data/generate.py                      rewrites the files
    python data/generate.py --check              says whether they are what the grammars and the task make
    python data/generate.py examples/helpdesk    does it for another task, whose data lies in its folder

Everything is drawn from a fixed seed, so the same grammars and task give the same bytes.

How a query is labelled: its template says what the query wishes for, as a list of cues. A cue is one wish,
and grammar/cues.toml says how much each label can do for it. The leading cue, the head of the phrase, counts
70 % where there are two and 60 % where there are three (SHARES). The sum is rounded to steps of 5 % (largest
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

from distilled_router.data.conversation import Example, normalised, row
from distilled_router.task.parsing import apportioned
from distilled_router.task.task import Task

HERE = Path(__file__).resolve().parent
SEED = 20
SPLITS = ("training", "holdout")
REQUEST_SHARE = 0.25
# Raw queries: each so many'th of the training rows' queries, without its label.
EVERY = 5
SHARES = {1: (1.0,), 2: (0.7, 0.3), 3: (0.6, 0.25, 0.15)}

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Group:
    """Templates that wish for the same things."""

    cues: tuple[str, ...]
    templates: tuple[str, ...]
    ask: bool


@dataclass(frozen=True, slots=True)
class Grammar:
    """Templates, the phrases that fill their slots, and how much each label can do for each cue."""

    labels: tuple[str, ...]
    cues: dict[str, tuple[float, ...]]
    rows: int
    requests: tuple[str, ...]
    groups: tuple[Group, ...]
    vocabulary: dict[str, tuple[str, ...]]

    @classmethod
    def load(cls, split: str, folder: Path = HERE) -> "Grammar":
        """Reads grammar/<split>.toml and grammar/cues.toml of a data set's folder."""
        values, policy = (
            tomllib.loads((folder / "grammar" / f"{name}.toml").read_text(encoding="utf-8"))
            for name in (split, "cues")
        )
        return cls(
            labels=tuple(policy["labels"]),
            cues={cue: tuple(shares) for cue, shares in policy["cues"].items()},
            rows=values["rows"],
            requests=tuple(values["requests"]),
            groups=tuple(
                Group(tuple(group["cues"]), tuple(group["templates"]), group.get("ask", False))
                for group in values["groups"]
            ),
            vocabulary={slot: tuple(phrases) for slot, phrases in values["vocabulary"].items()},
        )

    def label(self, cues: tuple[str, ...]) -> dict[str, float]:
        """The weights of a query with these cues, the leading one first."""
        weighted = [
            sum(share * self.cues[cue][place] for share, cue in zip(SHARES[len(cues)], cues, strict=True))
            for place in range(len(self.labels))
        ]
        return {name: steps / 20 for name, steps in zip(self.labels, apportioned(weighted, 20), strict=True)}


def queries(split: str, folder: Path = HERE) -> list[Example]:
    """All labelled queries of a split, no two the same after normalisation, in random order."""
    grammar = Grammar.load(split, folder)
    source = random.Random(f"{SEED} {split}")
    seen: set[str] = set()
    found = [
        Example(query, grammar.label(group.cues))
        for group in grammar.groups
        for template in group.templates
        for query in _drawn(grammar, group, template, source, seen)
    ]
    source.shuffle(found)
    return found


def _drawn(
    grammar: Grammar, group: Group, template: str, source: random.Random, seen: set[str]
) -> Iterator[str]:
    count = grammar.rows
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


def content(split: str, task: Task, folder: Path = HERE) -> str:
    """The text of a split's file."""
    rows = (row(task, example.query, example.weights) for example in queries(split, folder))
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


def raw_queries() -> str:
    """The text of queries.txt."""
    return "".join(f"{example.query}\n" for example in queries("training")[::EVERY])


def main() -> int:
    """The command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Writes a sample data set.")
    parser.add_argument("folder", nargs="?", type=Path, help="a task's folder with a grammar/ of its own")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    options = parser.parse_args()
    task, folder = Task.load(options.folder), (options.folder or HERE).resolve()
    labels = Grammar.load("training", folder).labels
    if task.labels != labels:
        print(f"The sample data is labelled {', '.join(labels)}; the task has {', '.join(task.labels)}.")
        return 2
    texts = {f"{split}.jsonl": content(split, task, folder) for split in SPLITS}
    if folder == HERE:
        texts["queries.txt"] = raw_queries()
    stale = 0
    for name, text in texts.items():
        path = folder / name
        current = path.is_file() and path.read_text(encoding="utf-8") == text
        if not options.check and not current:
            path.write_text(text, encoding="utf-8", newline="\n")
        outdated = "out of date, run this again without --check" if options.check else "written"
        stale += options.check and not current
        lines = f"{text.count(chr(10))} lines, {'current' if current else outdated}"
        print(f"{path.relative_to(HERE.parent, walk_up=True)}: {lines}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
