"""Generate the sample data set: training.jsonl, holdout.jsonl and queries.txt, from the grammars in grammar/.

    python data/generate.py                      writes the files
    python data/generate.py --check              fails if a file differs from what its grammar generates
    python data/generate.py examples/helpdesk    the same for another task, with its data in that folder

The random seed is fixed, so the same grammars and task give the same bytes.

How a query is labelled: its template lists cues, and grammar/cues.toml gives each cue's weights for the
labels. The leading cue, the head of the phrase, counts 70 % with two cues and 60 % with three (SHARES). The
sum is rounded to steps of 5 % (largest remainder). So queries with the same cues always have the same label.
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
# queries.txt has every fifth training query, without its label.
EVERY = 5
SHARES = {1: (1.0,), 2: (0.7, 0.3), 3: (0.6, 0.25, 0.15)}

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Group:
    """Templates with the same cues; `ask`: a request ("find ...") may precede them."""

    cues: tuple[str, ...]
    templates: tuple[str, ...]
    ask: bool


@dataclass(frozen=True, slots=True)
class Grammar:
    """Templates, the phrases for their slots, and the weights of each cue."""

    labels: tuple[str, ...]
    cues: dict[str, tuple[float, ...]]
    rows: int
    requests: tuple[str, ...]
    groups: tuple[Group, ...]
    vocabulary: dict[str, tuple[str, ...]]

    @classmethod
    def load(cls, split: str, folder: Path = HERE) -> "Grammar":
        """Read grammar/<split>.toml and grammar/cues.toml of a data set's folder."""
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
        """Return the weights of a query with these cues, the leading one first."""
        weighted = [
            sum(share * self.cues[cue][place] for share, cue in zip(SHARES[len(cues)], cues, strict=True))
            for place in range(len(self.labels))
        ]
        return {name: steps / 20 for name, steps in zip(self.labels, apportioned(weighted, 20), strict=True)}


def queries(split: str, folder: Path = HERE) -> list[Example]:
    """Return a split's labelled queries in random order; no two are equal after normalisation."""
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
    for _ in range(count * 10):  # a template with few possible queries gives fewer rows
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
        # Not the same phrase twice, as in "a chess board and a chess board".
        chosen = source.choice([each for each in vocabulary[match.group(1)] if each not in used])
        used.add(chosen)
        return chosen

    text = template
    while text != (text := _SLOT.sub(phrase, text)):  # a phrase may have slots of its own: "a {colour} car"
        used.clear()
    return text


def content(split: str, task: Task, folder: Path = HERE) -> str:
    """Return the content of a split's file."""
    rows = (row(task, example.query, example.weights) for example in queries(split, folder))
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


def raw_queries() -> str:
    """Return the content of queries.txt."""
    return "".join(f"{example.query}\n" for example in queries("training")[::EVERY])


def main() -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Generate a sample data set.")
    parser.add_argument("folder", nargs="?", type=Path, help="folder of another task, with its grammar/")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    options = parser.parse_args()
    task, folder = Task.load(options.folder), (options.folder or HERE).resolve()
    labels = Grammar.load("training", folder).labels
    if task.labels != labels:
        print(f"The sample data has the labels {', '.join(labels)}; the task has {', '.join(task.labels)}.")
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
        outdated = "out of date; run this again without --check" if options.check else "written"
        stale += options.check and not current
        lines = f"{text.count(chr(10))} lines, {'current' if current else outdated}"
        print(f"{path.relative_to(HERE.parent, walk_up=True)}: {lines}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
