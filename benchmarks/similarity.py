"""Near duplicates and families: what is recognised, what is confused, and what it takes.

    python -m benchmarks.similarity                     measures, prints the tables of README.md
    python -m benchmarks.similarity --only recognised   one of recognised, unrelated, split,
                                                        families, curate and check
    python -m benchmarks.similarity --rows 5000 --seconds 60     smaller sets; longer processes are stopped

    python -m benchmarks.similarity --python VENV/bin/python     compares datasketch, installed there

Queries are the real ones beside the project, or the sample data without them. Variants are made with a fixed
seed. Each measurement of time is a process that reports CPU time and peak memory. The exit status is 1 if a
bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import string
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.data.conversation import examples, normalised, row
from distilled_router.data.similarity import Neighbours, families
from distilled_router.task.task import Task

PROJECT = Path(__file__).resolve().parents[1]
REAL = PROJECT.parent / "shared" / "data"
SEED = 17
ROWS, CHECKED_ROWS, ORDINARY_ROWS = 100_000, 20_000, 15_000
# Bars: of variants that are recognised, of unrelated pairs, and of CPU seconds and megabytes by kind of work.
LEAST_RECOGNISED, MOST_UNRELATED = 0.95, 0.01
MOST_SECONDS = {"families": 20, "curate": 600, "check": 120}
MOST_MEGABYTES = 1_000
MISSED = " (missed)"
# Requests around a query, whose words are in the list of the module; and others, most of whose words are not.
PHRASES = (
    "show me {}",
    "find {}",
    "can you find me {}",
    "please show me videos of {}",
    "I am looking for {}",
    "{} please",
    "where is the part where {}",
    "a clip of {}",
)
OTHER_PHRASES = (
    "archive material with {}",
    "zeig mir {}",
    "{} in full length",
    "anything about {}",
    "do you have anything with {}",
    "every clip in which {}",
    "I need the shot where {}",
)


# Queries and their variants


def real(name: str) -> list[str]:
    """Return the different queries of a file of real data."""
    path = REAL / f"{name}.jsonl"
    queries = [json.loads(line)["query"] for line in path.read_text(encoding="utf-8").splitlines()]
    return list({normalised(query): query for query in queries}.values())


def sources() -> dict[str, list[str]]:
    """Return the files of real queries; the sample data if they are absent."""
    if REAL.exists():
        return {name: real(name) for name in ("teacher_labels", "tvr", "audiocaps", "didemo", "snips")}
    with (PROJECT / "data" / "training.jsonl").open(encoding="utf-8") as file:
        return {"sample": [each.query for each in examples(file, Task.load())]}


def typo(query: str, chance: random.Random) -> str:
    """Return a query with one wrong, missing, additional or exchanged letter, anywhere but at a space."""
    while True:
        place = chance.randrange(len(query))
        if not query[place].isalpha():
            continue
        letter, kind = chance.choice(string.ascii_lowercase), chance.randrange(4)
        before, old, after = query[:place], query[place], query[place + 1 :]
        if kind == 0:
            changed = before + letter + after
        elif kind == 1:
            changed = before + after
        elif kind == 2:
            changed = before + letter + old + after
        else:
            changed = before + after[:1] + old + after[1:]
        if normalised(changed) != normalised(query):
            return changed


def typo_in_long_word(query: str, chance: random.Random) -> str:
    """Return a query with a typo in a word of four letters or more; any typo if it has none."""
    words = query.split()
    long = [place for place, word in enumerate(words) if sum(map(str.isalpha, word)) > 3]
    if not long:
        return typo(query, chance)
    place = chance.choice(long)
    words[place] = typo(words[place], chance)
    return " ".join(words)


def phrased(phrase: str) -> Callable[[str, random.Random], str]:
    return lambda query, chance: phrase.format(query)


def any_phrase(query: str, chance: random.Random) -> str:
    return chance.choice(PHRASES).format(query)


def other_phrase(query: str, chance: random.Random) -> str:
    return chance.choice(OTHER_PHRASES).format(query)


VARIANTS: dict[str, Callable[[str, random.Random], str]] = {
    "one typo": typo,
    "one typo in a word of 4 letters or more": typo_in_long_word,
    **{phrase.format("…"): phrased(phrase) for phrase in (*PHRASES, *OTHER_PHRASES)},
}


def recognised(queries: Sequence[str], vary: Callable[[str, random.Random], str], seed: str) -> float:
    """Return the share of the queries whose variant is a near duplicate of them."""
    chance, near = random.Random(seed), Neighbours(queries)  # noqa: S311 - no secret
    places = range(0, len(queries), max(1, len(queries) // 1_000))
    return sum(place in near.near(vary(queries[place], chance)) for place in places) / len(places)


def recognition() -> Iterator[str]:
    """Yield the table of recognised variants, by file."""
    found = sources()
    yield "| variant | " + " | ".join(found) + " |"
    yield "|---|" + "---:|" * len(found)
    for name, vary in VARIANTS.items():
        shares = (recognised(queries, vary, f"{SEED} {name}") for queries in found.values())
        yield (
            f"| {name} | "
            + " | ".join(marked(f"{share:.1%}", share >= LEAST_RECOGNISED) for share in shares)
            + " |"
        )


def unrelated() -> Iterator[str]:
    """Yield the table of real queries that were never meant as variants of each other."""
    found = sources()
    yield "| queries of | random pairs | with a near duplicate in another file | in the same file |"
    yield "|---|---:|---:|---:|"
    for name, queries in found.items():
        chance = random.Random(f"{SEED} {name}")  # noqa: S311 - no secret
        near = Neighbours(queries)
        others = Neighbours(query for other, each in found.items() if other != name for query in each)
        places = range(0, len(queries), max(1, len(queries) // 1_000))
        hits = {place: near.near(queries[place]) for place in places}
        pairs = [(place, other) for place in places for other in chance.choices(range(len(queries)), k=200)]
        pairs = [(place, other) for place, other in pairs if place != other]
        random_share = sum(other in hits[place] for place, other in pairs) / len(pairs)
        elsewhere = sum(others.nearest(queries[place]) is not None for place in places) / len(places)
        inside = sum(len(each) > 1 for each in hits.values()) / len(places)
        pairs_share, found_share = (
            marked(f"{share:.{digits}%}", share <= MOST_UNRELATED)
            for share, digits in ((random_share, 3), (elsewhere, 1))
        )
        yield f"| {name} | {pairs_share} | {found_share} | {inside:.1%} |"


def twins() -> Iterator[str]:
    """Yield how many held-out queries have their variant in training, with one variant of each query."""
    yield "| variants | held out | with their variant in training |"
    yield "|---|---:|---:|"
    queries = [query for each in sources().values() for query in each]
    for name, vary in (("one typo", typo), ("phrases", any_phrase)):
        chance = random.Random(f"{SEED} {name}")  # noqa: S311 - no secret
        source = chance.sample(queries, min(1_200, len(queries)))
        pairs = {query: vary(query, chance) for query in source}
        held_out, trained = split([*pairs, *pairs.values()])
        apart = sum((twin in trained) for query, twin in pairs.items() if query in held_out)
        apart += sum((query in trained) for query, twin in pairs.items() if twin in held_out)
        yield f"| {name} | {len(held_out):,} | {apart:,} |"


def split(queries: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the held-out queries and those of training, as curation splits them."""
    from labelling.curation import HOLDOUT, TRAINING

    parts = curated(queries).parts
    return {one.query for one in parts.get(HOLDOUT, ())}, {one.query for one in parts[TRAINING]}


def curated(queries: Sequence[str]) -> Any:
    """Curate queries that the teacher labelled surely and evenly."""
    from labelling.curation import curate
    from tests.unit.labelling.scenes import PLAN

    task = Task.load()
    label = {name: {each: float(each == name) for each in task.labels} for name in task.labels}
    rows = (
        {
            "query": query,
            "answers": [{"weights": label[task.labels[number % len(task.labels)]]}] * 3,
            "input_tokens": 1,
            "output_tokens": 1,
        }
        for number, query in enumerate(queries)
    )
    return curate(rows, replace(PLAN, maximum_label_share=1.0), task, None)


# Sets of queries that are hard in different ways


def ordinary(count: int, chance: random.Random) -> Iterator[str]:
    """Yield real queries; beyond their number, ones with the same words and lengths."""
    known = [query for each in sources().values() for query in each]
    chance.shuffle(known)
    yield from known[:count]
    words = [word for query in known for word in query.split()]
    for _ in range(count - len(known)):
        yield " ".join(chance.choices(words, k=len(chance.choice(known).split())))


def of_one_template(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries that differ in three names, each one of sixty."""
    names = [_name(chance) for _ in range(180)]
    for _ in range(count):
        first, last, place = (chance.choice(names[start : start + 60]) for start in (0, 60, 120))
        yield f"films directed by {first} {last} in {place}"


def of_few_words(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries of 60 words."""
    words = [_name(chance).lower() for _ in range(60)]
    for _ in range(count):
        yield " ".join(chance.choices(words, k=chance.randint(4, 12)))


def long(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries of 500 characters."""
    words = [word for each in sources().values() for query in each for word in query.split()]
    for _ in range(count):
        yield " ".join(chance.choices(words, k=120))[:500]


def nearly_equal(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries that differ in two of twelve words."""
    for _ in range(count):
        words = [*re.findall(r"\w+", "big red car parked outside small hotel while heavy rain falls tonight")]
        for place in chance.sample(range(len(words)), chance.randint(1, 2)):
            words[place] = _name(chance).lower()
        yield " ".join(words)


def one_letter_apart(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries whose words differ in one letter each."""
    for number in range(count):
        first, second = divmod(number, 400)
        yield f"{_word(first)} beside {_word(second)}"


def of_characters(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries of 500 Chinese characters, each of which counts as a word."""
    characters = [chr(0x4E00 + number) for number in range(1_000)]
    for _ in range(count):
        yield "".join(chance.choices(characters, k=500))


def without_spaces(count: int, chance: random.Random) -> Iterator[str]:
    """Yield queries of 500 Thai letters, which have no spaces between words."""
    words = ["".join(chr(0x0E01 + chance.randrange(46)) for _ in range(5)) for _ in range(1_000)]
    for _ in range(count):
        yield "".join(chance.choices(words, k=100))


def _name(chance: random.Random) -> str:
    return "".join(chance.choice("bcdfglmnprst") + chance.choice("aeiou") for _ in range(4)).title()


def _word(number: int) -> str:
    letters = string.ascii_lowercase
    return f"{letters[number // 26 % 26]}o{letters[number % 26]}ering"


KINDS: dict[str, Callable[[int, random.Random], Iterator[str]]] = {
    "ordinary": ordinary,
    "one template": of_one_template,
    "60 words": of_few_words,
    "500 characters": long,
    "nearly equal": nearly_equal,
    "one letter apart": one_letter_apart,
    "500 Chinese characters": of_characters,
    "500 Thai characters": without_spaces,
}


def queries_of(kind: str, count: int, part: int = 0) -> list[str]:
    return list(KINDS[kind](count, random.Random(f"{SEED} {kind} {part}")))  # noqa: S311 - no secret


# Time and memory, each in a process


def measured(work: str, kind: str, count: int) -> dict[str, float]:
    """Do the work in this process; return CPU seconds without imports and input, and peak memory."""
    task = Task.load()
    queries = queries_of(kind, count)
    if work == "families":
        start = time.process_time()
        families(queries)
    elif work == "curate":
        curated(queries[:10])
        start = time.process_time()
        curated(queries)
    elif work == "check":
        from distilled_router.data.dataset_rules import check_dataset

        chance = random.Random(SEED)  # noqa: S311 - no secret
        weights = [{each: float(each == name) for each in task.labels} for name in task.labels]
        training, holdout = (
            [json.dumps(row(task, query, chance.choice(weights))).encode() for query in some]
            for some in (queries, queries_of(kind, count, 1))
        )
        start = time.process_time()
        check_dataset(training, holdout, task, "fine_tuning")
    else:
        start = time.process_time()
        with_datasketch(queries)
    seconds = time.process_time() - start
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e6}


def with_datasketch(queries: Sequence[str]) -> None:
    """Find near duplicates by MinHash and LSH: sets of words, joined where they share a bucket."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]  # in its own environment

    from distilled_router.data.wording import Stems, words_of

    stems, lsh = Stems(), MinHashLSH(threshold=0.75, num_perm=128)
    sets = [sorted(stems.of(words_of(normalised(query)))) for query in queries]
    hashes = MinHash.bulk(([word.encode() for word in each] for each in sets), num_perm=128)
    for number, one in enumerate(hashes):
        lsh.insert(number, one)
    pairs = sum(len(lsh.query(one)) for one in hashes)
    print(f"{pairs:,} pairs", file=sys.stderr)


def compared(python: str, rows: int, seconds: float) -> Iterator[str]:
    """Yield the table of CPU time and memory beside datasketch's."""
    yield "| queries | rows | ours: CPU s | peak MB | datasketch: CPU s | peak MB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for kind in ("ordinary", "60 words", "nearly equal"):
        ours = in_process("families", kind, rows, seconds)
        theirs = in_process("datasketch", kind, rows, seconds, python)
        cells = (
            f"{each['seconds']:,.1f} | {each['megabytes']:,.0f}" if each else f"over {seconds:,.0f} | "
            for each in (ours, theirs)
        )
        yield f"| {kind} | {rows:,} | " + " | ".join(cells) + " |"


def in_process(
    work: str, kind: str, count: int, seconds: float, python: str = sys.executable
) -> dict[str, float] | None:
    """Measure in a new process; None if it takes longer than `seconds`."""
    command = [python, "-m", "benchmarks.similarity", "--measure", work, kind, "--rows", str(count)]
    # The other Python finds the packages of this one, too.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    try:
        output = subprocess.run(  # noqa: S603 - our own command
            command, cwd=PROJECT, check=True, capture_output=True, text=True, timeout=seconds, env=environment
        ).stdout
    except subprocess.TimeoutExpired:
        return None
    return dict(json.loads(output))


def speed(work: str, kinds: Sequence[str], rows: int, seconds: float) -> Iterator[str]:
    """Yield the table of CPU time and memory of some work."""
    yield f"| {work} | rows | CPU s | peak MB |"
    yield "|---|---:|---:|---:|"
    for kind in kinds:
        found = in_process(work, kind, rows, seconds)
        if not found:
            yield f"| {kind} | {rows:,} | over {seconds:,.0f}{MISSED} | |"
            continue
        figures = (
            marked(f"{found['seconds']:,.1f}", found["seconds"] <= MOST_SECONDS[work]),
            marked(f"{found['megabytes']:,.0f}", found["megabytes"] <= MOST_MEGABYTES),
        )
        yield f"| {kind} | {rows:,} | {' | '.join(figures)} |"


def marked(figure: str, reaches: bool) -> str:
    """Return a figure, marked if it misses its bar."""
    return figure if reaches else figure + MISSED


def main() -> None:
    """Measure, and print the tables."""
    works = {
        "families": (["ordinary"], ORDINARY_ROWS),
        "curate": (list(KINDS), ROWS),
        "check": (list(KINDS), CHECKED_ROWS),
    }
    parser = argparse.ArgumentParser(description="Measure near duplicates and families.")
    parser.add_argument("--only", choices=("recognised", "unrelated", "split", *works))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seconds", type=float, default=3_600)
    parser.add_argument("--python", help="of an environment with datasketch, to compare it")
    parser.add_argument("--measure", nargs=2, metavar=("WORK", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        work, kind = given.measure
        print(json.dumps(measured(work, kind, given.rows)))
        return
    if given.python:
        print(*compared(given.python, min(given.rows, ORDINARY_ROWS), given.seconds), sep="\n")
        return
    tables: dict[str, Iterator[str]] = {
        "recognised": recognition(),
        "unrelated": unrelated(),
        "split": twins(),
        **{
            work: speed(work, kinds, min(given.rows, rows), given.seconds)
            for work, (kinds, rows) in works.items()
        },
    }
    is_missed = False
    for name, table in tables.items():
        if given.only in (None, name):
            for line in table:
                is_missed |= MISSED in line
                print(line, flush=True)
            print()
    print(f"Python {platform.python_version()}, {platform.machine()}.")
    sys.exit(is_missed)


if __name__ == "__main__":
    main()
