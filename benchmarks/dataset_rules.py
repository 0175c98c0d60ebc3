"""Speed and memory of the data set rules, compared with JSON parsing and a schema or model per record.

    python -m benchmarks.dataset_rules                  measures, prints the table of README.md
    python -m benchmarks.dataset_rules --rows 1500 --megabytes 20 --repeats 1     a short run

The files are generated from the sample data with a fixed seed. Each measurement is a process that reads one
set of files and reports its CPU time without imports, and its peak memory.
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
from importlib import import_module
from pathlib import Path
from typing import Any

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.data.conversation import Example, examples, normalised, row
from distilled_router.task.task import Task

PROJECT = Path(__file__).resolve().parents[1]
SEED = 4
HOLDOUT_PART = 15  # training rows per hold-out row
_LARGEST = 999_000_000  # bytes; a file must stay below 1 GB


@dataclass(frozen=True)
class Files:
    """One set of files to check; `with_schema`: the other approaches read it too."""

    name: str
    training: Path
    holdout: Path | None = None
    with_schema: bool = True


@dataclass(frozen=True)
class Measured:
    """One process: rows read, CPU seconds, peak memory."""

    rows: int
    seconds: float
    peak_megabytes: float

    @property
    def rate(self) -> float:
        """Rows per CPU second."""
        return self.rows / self.seconds


# The approaches. Each reads a training file and an optional hold-out file, and returns the number of rows.


def with_rules(training: Path, holdout: Path | None) -> int:
    """Apply all rules of this project, including near duplicates, labels, prompts and balance."""
    from distilled_router.data.dataset_rules import check_dataset
    from distilled_router.data.line_rules import lines

    def content(path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            yield from lines(iter(lambda: file.read(65_536), b""))

    report = check_dataset(
        content(training), content(holdout) if holdout else None, Task.load(), "distillation"
    )
    # A file with more rows than a job takes is refused only for the number of rows.
    assert {rule for severity, rule in report.counts if severity == "error"} <= {"row-count"}, (
        report.summary()
    )
    return report.rows.total()


def with_schema(training: Path, holdout: Path | None) -> int:
    """Check each record like AWS's validator for distillation: JSON, a JSON schema, alternating roles.

    The validator is model_distillation/dataset-validation in amazon-bedrock-samples. Unlike it, this function
    compiles the schema once and not for every record, and does not read a whole file into memory.
    """
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no type hints

    content = {"type": "array", "minItems": 1, "maxItems": 1, "items": _object(text={"type": "string"})}
    role = {"enum": ["user", "assistant"]}
    messages = {"type": "array", "minItems": 1, "maxItems": 2, "items": _object(role=role, content=content)}
    version = {"const": "bedrock-conversation-2024"}
    schema = _object(schemaVersion=version, system=content, messages=messages)
    schema["required"] = ["schemaVersion", "messages"]
    validator = Draft202012Validator(schema)

    def check(line: bytes) -> None:
        record = json.loads(line)
        validator.validate(record)
        for number, message in enumerate(record["messages"]):
            assert message["role"] == ("assistant" if number % 2 else "user")

    return _each(training, holdout, check)


def with_model(training: Path, holdout: Path | None) -> int:
    """Check each record like AWS's validator for Nova: JSON, then a pydantic model with rules in Python."""
    from benchmarks.records import Record

    return _each(training, holdout, lambda line: Record.model_validate(json.loads(line)))


def with_compiled_model(training: Path, holdout: Path | None) -> int:
    """Check each record by the rules of `with_schema`, in the fastest form that we know.

    pydantic parses and checks a line in one call, without any Python.
    """
    from pydantic import TypeAdapter

    from benchmarks.records import CompiledRecord

    return _each(training, holdout, TypeAdapter(CompiledRecord).validate_json)


def _each(training: Path, holdout: Path | None, check: Callable[[bytes], object]) -> int:
    """Check each line of the files, and return their number."""
    rows = 0
    for path in (training, holdout):
        if path is not None:
            with path.open("rb") as file:
                for line in file:
                    check(line)
                    rows += 1
    return rows


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


APPROACHES: dict[str, Callable[[Path, Path | None], int]] = {
    "rules": with_rules,
    "schema": with_schema,
    "model": with_model,
    "compiled": with_compiled_model,
}
IMPORTS = {
    "rules": ("distilled_router.data.dataset_rules",),
    "schema": ("jsonschema",),
    "model": ("benchmarks.records",),
    "compiled": ("benchmarks.records",),
}


# The files


def drawn(source: str, count: int, task: Task) -> Iterator[Example]:
    """Yield different queries with the words, lengths and labels of a sample file in its proportions."""
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
    """Write rows as JSON lines and return the path."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in found:
            file.write(json.dumps(row(task, example.query, example.weights), **options) + "\n")
    return path


def varied(path: Path, found: Sequence[Example], task: Task) -> Path:
    """Write rows whose keys are in another order than those of the row before."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, example in enumerate(found):
            content = list(row(task, example.query, example.weights).items())
            turn = number % len(content)
            file.write(json.dumps(dict(content[turn:] + content[:turn])) + "\n")
    return path


def files(folder: Path, rows: int, size: int) -> Iterator[Files]:
    """Write the files and yield them; `size` is that of the large files, in bytes."""
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
    yield Files("no two rows alike in form", varied(folder / "varied.jsonl", training, task))
    yield Files("escapes in each row", written(folder / "escaped.jsonl", iter(quoted), task), held_out)
    # The largest valid file: rows longer than the router accepts only cause a warning.
    longer = size // rows - plain.stat().st_size // rows
    long = (Example(f"{each.query} {'lorem ipsum ' * (longer // 12)}", each.weights) for each in training)
    yield Files("largest valid file", written(folder / "largest.jsonl", long, task))
    with (folder / "many.jsonl").open("wb") as file:
        content = plain.read_bytes()
        for _ in range(size // len(content)):
            file.write(content)
    yield Files("too many rows, refused", folder / "many.jsonl", with_schema=False)


# Measuring


def measure(approach: str, training: Path, holdout: Path | None) -> Measured:
    """Run and measure one approach in this process, after its imports."""
    for module in IMPORTS[approach]:
        import_module(module)
    start = time.process_time()
    rows = APPROACHES[approach](training, holdout)
    seconds = time.process_time() - start
    return Measured(rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024)


def measure_in_process(approach: str, found: Files) -> Measured:
    """Run and measure one approach in a new process."""
    command = [sys.executable, "-m", "benchmarks.dataset_rules", "--measure", approach, str(found.training)]
    command += [str(found.holdout)] if found.holdout else []
    output = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return Measured(**json.loads(output))


def table(measured: Sequence[tuple[Files, list[dict[str, Measured]]]]) -> Iterator[str]:
    """Yield the table's lines and the peaks: medians of the repeats, or of the ratios per repeat."""
    names = list(APPROACHES)
    columns = ["file", "MB", "rows", *names, *(f"to {name}" for name in names[1:])]
    yield f"| {' | '.join(columns)} |"
    yield f"|---|{'---:|' * (len(columns) - 1)}"
    peaks = []
    for found, repeats in measured:
        size = sum(path.stat().st_size for path in (found.training, found.holdout) if path) / 1e6
        cells = [found.name, f"{size:,.0f}", f"{repeats[0]['rules'].rows:,}"]
        given = [[repeat[name] for repeat in repeats if name in repeat] for name in names]
        cells += [f"{statistics.median(one.rate for one in each):,.0f}" if each else "" for each in given]
        for other in given[1:]:
            pairs = zip(given[0], other, strict=True) if other else ()
            ratio = [one.rate / another.rate for one, another in pairs]
            cells.append(f"**{statistics.median(ratio):.1f}**" if ratio else "")
        peaks += [one.peak_megabytes for each in given for one in each]
        yield f"| {' | '.join(cells)} |"
    yield f"\nPeak memory is {min(peaks):.0f} to {max(peaks):.0f} MB."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataset_rules", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=15_000, help="rows of the training file; a job takes up to 15,000"
    )
    parser.add_argument(
        "--megabytes", type=int, default=_LARGEST // 1_000_000, help="size of the large files"
    )
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
            names = list(APPROACHES) if found_files.with_schema else ["rules"]
            # In turns, so that other load on the machine affects both.
            repeats = [
                {name: measure_in_process(name, found_files) for name in names}
                for _ in range(options.repeats)
            ]
            measured.append((found_files, repeats))
        print("\n".join(table(measured)))
    print(f"\nPython {platform.python_version()}, {platform.machine()}, median of {options.repeats}.")


if __name__ == "__main__":
    main()
