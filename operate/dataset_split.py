"""Split labelled rows into a training and a hold-out file.

Similar queries stay together, so that the hold-out set asks what the student
was not trained on. The same rows give the same files. Rows without an answer
are trained on.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distilled_router.data.conversation import Example, InvalidRow, examples
from distilled_router.data.similarity import Neighbours, families
from distilled_router.data.split import Part, split
from distilled_router.task.task import Task
from operate.console import console, say
from operate.errors import OperateError

EXAMPLES = """\
  python -m operate dataset-split rows.jsonl \\
    --training training.jsonl --holdout holdout.jsonl
  python -m operate dataset-split rows.jsonl --task tasks/support --share 0.1 \\
    --training tasks/support/training.jsonl \\
    --holdout tasks/support/holdout.jsonl
"""
_SHARE = 0.2
_TRAINING, _HOLDOUT = "training", "holdout"
_SEED = "dataset-split"


@dataclass(frozen=True)
class Row:
    """A line of a file, and the query and the answer in it; None without an answer."""

    line: str
    example: Example | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, help="labelled rows (.jsonl)")
    parser.add_argument("--training", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--holdout", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--share", type=_share, default=_SHARE, help=f"held out; by default {_SHARE}")
    parser.add_argument("--task", type=Path, metavar="FOLDER", help="the task's folder; by default task")
    parser.add_argument("--replace", action="store_true", help="overwrite files that exist")


def _share(given: str) -> float:
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 0.5:
        raise argparse.ArgumentTypeError(f"found {given}, expected a share above 0, at most 0.5")
    return share


def run(options: argparse.Namespace) -> int:
    """Write both files, and tell how many rows they have."""
    task = Task.load(options.task)
    outputs = {_TRAINING: options.training, _HOLDOUT: options.holdout}
    _check(options.file, [*outputs.values()], may_replace=options.replace)
    parts = split_rows(read(options.file, task), task, options.share)
    for name, path in outputs.items():
        path.write_text("".join(f"{row.line}\n" for row in parts[name]), encoding="utf-8")
    say(console(), *told(parts, outputs, task))
    task_option = f" TASK={options.task}" if options.task else ""
    files = f"FILE={options.training} HOLDOUT={options.holdout}{task_option}"
    say(console(), "Next:", f"  make dataset-check {files}")
    return 0


def read(file: Path, task: Task) -> list[Row]:
    """Return the rows of a file.

    Raises:
        OperateError: It can't be read, or a line is no row of the task.
    """
    rows: list[Row] = []
    number = 0
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for line in lines:
                number += 1
                if line.strip():
                    rows.append(Row(line.rstrip("\r\n"), next(examples([line], task), None)))
    except (InvalidRow, UnicodeDecodeError) as error:
        raise OperateError(
            f"{file}:{number}: {error}",
            advice=f"Nothing was written. Check the rows first: make dataset-check FILE={file}",
        ) from error
    except OSError as error:
        raise OperateError(f"{file} can't be read: {error.strerror}.") from error
    return rows


def split_rows(rows: Sequence[Row], task: Task, share: float) -> dict[str, list[Row]]:
    """Return the rows to train on and those that are held out, by label and families of similar queries."""
    answered = [row for row in rows if row.example]
    found = split(
        answered,
        families([_example(row).query for row in answered]),
        {_HOLDOUT: Part(share, len(answered))},
        rest=_TRAINING,
        query=lambda row: _example(row).query,
        label=lambda row: task.dominant(_example(row).weights),
        seed=_SEED,
    )
    held_out = {id(row) for row in _unlike(found[_HOLDOUT], found[_TRAINING])}
    # In the order of the file.
    return {
        _TRAINING: [row for row in rows if id(row) not in held_out],
        _HOLDOUT: [row for row in rows if id(row) in held_out],
    }


def _unlike(held_out: list[Row], trained: list[Row]) -> list[Row]:
    """Return the held-out rows that no row to train on is a near duplicate of.

    Families are groups of queries that are alike as a whole, so a few near duplicates are in different ones.
    """
    while trained:
        like = Neighbours([_example(row).query for row in trained])
        trained = [row for row in held_out if like.nearest(_example(row).query) is not None]
        moved = {id(row) for row in trained}
        held_out = [row for row in held_out if id(row) not in moved]
    return held_out


def _example(row: Row) -> Example:
    assert row.example is not None
    return row.example


def told(parts: dict[str, list[Row]], outputs: dict[str, Path], task: Task) -> list[str]:
    """Return a line for each file: its rows, and how many have each label as the largest."""
    lines = []
    for name, rows in parts.items():
        labels = Counter(task.dominant(row.example.weights) for row in rows if row.example)
        counted = ", ".join(f"{label} {labels[label]:,}" for label in task.labels)
        lines.append(f"Wrote {len(rows):,} rows to {outputs[name]}: {counted}.")
    return lines


def _check(file: Path, outputs: Sequence[Path], *, may_replace: bool) -> None:
    """Raise OperateError if the files can't be written where the user says."""
    one, other = outputs
    if one.absolute() == other.absolute() or file.absolute() in (one.absolute(), other.absolute()):
        raise OperateError("FILE, TRAINING and HOLDOUT must be three files.", advice="Nothing was written.")
    for path in outputs:
        if not path.parent.is_dir():
            raise OperateError(f"{path} is in a folder that doesn't exist.", advice="Nothing was written.")
        if path.exists() and not may_replace:
            raise OperateError(
                f"{path} exists already.", advice="Name another file, or overwrite it with REPLACE=1."
            )
