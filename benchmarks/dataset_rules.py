"""How fast the rules of a data set are checked, beside JSON and a schema per record; and in how much memory.

    python -m benchmarks.dataset_rules                  measures, prints the table of README.md
    python -m benchmarks.dataset_rules --rows 1500 --megabytes 20 --repeats 1     a quick look

The files are drawn from the sample data by a fixed seed. Each measurement is a process of its own, which
reads one set of files and says how much CPU time that took (imports apart) and how much memory at its peak.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.data.conversation import Example, examples, normalised, row
from distilled_router.task.task import Task

PROJECT = Path(__file__).resolve().parents[1]
SEED = 4
HOLDOUT_PART = 15  # one row is held out for so many that are trained on
_LARGEST = 999_000_000  # of the 1 GB that a file must stay below


@dataclass(frozen=True)
class Files:
    """One set of files to check; `peers` says whether the other approach reads it, too."""

    name: str
    training: Path
    holdout: Path | None = None
    peers: bool = True


@dataclass(frozen=True)
class Measured:
    """What one process read, in how much CPU time, and the most memory that it held."""

    rows: int
    seconds: float
    peak_megabytes: float

    @property
    def rate(self) -> float:
        """Rows in a second."""
        return self.rows / self.seconds


# What is compared. Each takes a training file and perhaps a hold-out file, and returns how many rows it read.


def with_rules(training: Path, holdout: Path | None) -> int:
    """All rules of this project: near duplicates, labels, prompts and balance included."""
    from distilled_router.data.dataset_rules import check_dataset
    from distilled_router.data.line_rules import lines

    def content(path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from lines(iter(lambda: file.read(65_536), b""))

    report = check_dataset(
        content(training), content(holdout) if holdout else None, Task.load(), "distillation"
    )
    # A file of more rows than a job takes is refused for that, and for nothing else.
    assert {rule for severity, rule in report.counts if severity == "error"} <= {"row-count"}, (
        report.summary()
    )
    return report.rows.total()


def with_schema(training: Path, holdout: Path | None) -> int:
    """What AWS's sample validator does with a record (model_distillation/dataset-validation in
    amazon-bedrock-samples): parse it, check it against a JSON schema, check that the roles alternate. Here
    the schema is compiled once, where that one compiles it for every record, and no file is read whole."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it comes without types

    content = {"type": "array", "minItems": 1, "maxItems": 1, "items": _object(text={"type": "string"})}
    role = {"enum": ["user", "assistant"]}
    messages = {"type": "array", "minItems": 1, "maxItems": 2, "items": _object(role=role, content=content)}
    version = {"const": "bedrock-conversation-2024"}
    schema = _object(schemaVersion=version, system=content, messages=messages)
    schema["required"] = ["schemaVersion", "messages"]
    validator = Draft202012Validator(schema)
    rows = 0
    for path in (training, holdout):
        if path is None:
            continue
        with path.open("rb") as file:
            for line in file:
                record = json.loads(line)
                validator.validate(record)
                for number, message in enumerate(record["messages"]):
                    assert message["role"] == ("assistant" if number % 2 else "user")
                rows += 1
    return rows


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


APPROACHES: dict[str, Callable[[Path, Path | None], int]] = {"rules": with_rules, "schema": with_schema}


# The files


def drawn(source: str, count: int, task: Task) -> Iterator[Example]:
    """Different queries of a sample file's words, lengths and labels, in the shares that they have there."""
    with (PROJECT / "data" / source).open(encoding="utf-8") as file:
        known = list(examples(file, task))
    words = [word for example in known for word in example.query.split()]
    chance, seen = random.Random(f"{SEED} {source}"), set[str]()  # noqa: S311 - no secret
    while len(seen) < count:
        length, weights = len(chance.choice(known).query.split()), chance.choice(known).weights
        query = " ".join(chance.choices(words, k=length + 2))
        if (form := normalised(query)) not in seen:
            seen.add(form)
            yield Example(query, weights)


def written(path: Path, found: Iterator[Example], task: Task, **options: Any) -> Path:
    """Write rows as JSON lines."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in found:
            file.write(json.dumps(row(task, example.query, example.weights), **options) + "\n")
    return path


def files(folder: Path, rows: int, size: int) -> Iterator[Files]:
    """What is measured. `size` is that of the large files, in bytes."""
    task = Task.load()
    training, holdout = (
        list(drawn(f"{name}.jsonl", count, task))
        for name, count in (("training", rows), ("holdout", rows // HOLDOUT_PART))
    )
    plain = written(folder / "training.jsonl", iter(training), task)
    held_out = written(folder / "holdout.jsonl", iter(holdout), task)
    yield Files("training", plain)
    yield Files("training and hold-out", plain, held_out)
    quoted = [Example(f'"{example.query}" \u00e9', example.weights) for example in training]
    yield Files("escapes in each row", written(folder / "escaped.jsonl", iter(quoted), task), held_out)
    # Longer than the router takes, which is a warning: the most bytes that a job's rows can have.
    longer = size // rows - plain.stat().st_size // rows
    long = (Example(f"{each.query} {'lorem ipsum ' * (longer // 12)}", each.weights) for each in training)
    yield Files("largest valid file", written(folder / "largest.jsonl", long, task))
    with (folder / "many.jsonl").open("wb") as file:
        content = plain.read_bytes()
        for _ in range(size // len(content)):
            file.write(content)
    yield Files("too many rows, refused", folder / "many.jsonl", peers=False)


# Measuring


def measure(approach: str, training: Path, holdout: Path | None) -> Measured:
    """Run one approach in this process."""
    start = time.process_time()
    rows = APPROACHES[approach](training, holdout)
    seconds = time.process_time() - start
    return Measured(rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)


def apart(approach: str, found: Files) -> Measured:
    """Run one approach in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.dataset_rules", "--measure", approach, str(found.training)]
    command += [str(found.holdout)] if found.holdout else []
    output = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return Measured(**json.loads(output))


def table(measured: Sequence[tuple[Files, list[dict[str, Measured]]]]) -> Iterator[str]:
    """Medians of all repeats; `times` is the median of the ratios within a repeat."""
    yield "| file | MB | rows | rules: rows/s | schema: rows/s | times | rules: peak MB | schema: peak MB |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for found, repeats in measured:
        size = sum(path.stat().st_size for path in (found.training, found.holdout) if path) / 1e6
        rules = [repeat["rules"] for repeat in repeats]
        cells = [found.name, f"{size:,.0f}", f"{rules[0].rows:,}"]
        cells.append(f"{statistics.median(one.rate for one in rules):,.0f}")
        schemas = [repeat["schema"] for repeat in repeats if "schema" in repeat]
        if schemas:
            cells.append(f"{statistics.median(one.rate for one in schemas):,.0f}")
            ratios = (one.rate / other.rate for one, other in zip(rules, schemas, strict=True))
            cells.append(f"**{statistics.median(ratios):.1f}**")
        else:
            cells += ["", ""]
        for one in (rules, schemas):
            cells.append(f"{statistics.median(each.peak_megabytes for each in one):.0f}" if one else "")
        yield f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataset_rules", description=__doc__)
    parser.add_argument("--rows", type=int, default=15_000, help="of the training file; a job takes 15,000")
    parser.add_argument("--megabytes", type=int, default=_LARGEST // 1_000_000, help="of the large files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        approach, training, *holdout = options.measure
        found = measure(approach, Path(training), Path(holdout[0]) if holdout else None)
        print(json.dumps(vars(found)))
        return
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for found_files in files(Path(folder), options.rows, options.megabytes * 1_000_000):
            names = list(APPROACHES) if found_files.peers else ["rules"]
            # By turns, so that what else the machine does meets both.
            repeats = [{name: apart(name, found_files) for name in names} for _ in range(options.repeats)]
            measured.append((found_files, repeats))
        print("\n".join(table(measured)))
    print(f"\nPython {platform.python_version()}, {platform.machine()}, median of {options.repeats}.")


if __name__ == "__main__":
    main()
