"""Train a classification head from labelled rows, or let one answer queries.

It is the code of a release's step TrainHead and of the router, on this machine:
nothing is sent to AWS. Without a student, the threshold is chosen as if the
student were always right; a release compares with its own student.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cdk_distilled_router.props import HeadProps
from distilled_router.data.conversation import Example, InvalidRow, examples
from distilled_router.head import artifact
from distilled_router.head.calibration import calibrate
from distilled_router.head.defer import negatives
from distilled_router.head.model import Head, HeadError
from distilled_router.head.training import Labelled, NoLabelsError, Training
from distilled_router.release.route import HEAD_FILE
from distilled_router.task.parsing import weights_problem
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task, default_folder
from evaluation.head_report import HEAD, Margins, Tested
from evaluation.metrics import Answer, Question
from evaluation.questions import questions
from operate.console import console, say
from operate.errors import OperateError, drop_output
from operate.printing import err, out

EXAMPLES = """\
  python -m operate head train --training data/training.jsonl \\
    --holdout data/holdout.jsonl --out head
  python -m operate head score --head head/head.bin \\
    --queries data/sample_queries.txt
"""
_DEFAULTS = HeadProps()
# Hold-out queries with a variant in each robustness slice: the default of the settings.
_SLICE_QUERIES = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|score")
    train = actions.add_parser(
        "train", help="train a head, choose its threshold, and write head.bin and head.json"
    )
    train.add_argument(
        "--training",
        type=Path,
        required=True,
        metavar="FILE",
        help="labelled rows, or objects with query and weights (.jsonl)",
    )
    train.add_argument(
        "--holdout", type=Path, required=True, metavar="FILE", help="rows that choose the threshold (.jsonl)"
    )
    train.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder for the two files")
    train.add_argument(
        "--margin-error",
        type=_margin,
        metavar="MARGIN",
        default=_DEFAULTS.margin_error,
        help=f"head.margin_error of the settings; by default {_DEFAULTS.margin_error:g}",
    )
    train.add_argument(
        "--margin-dominant",
        type=_margin,
        metavar="MARGIN",
        default=_DEFAULTS.margin_dominant,
        help=f"head.margin_dominant of the settings; by default {_DEFAULTS.margin_dominant:g}",
    )
    score = actions.add_parser(
        "score",
        help="print a head's answer to each query as a line of JSON",
        description="Print a head's answer to each query as a line of JSON: weights; risk, which is null "
        "if the query is too long; whether it is accepted, that is, answered before the student is asked; "
        "and the number of the category.",
    )
    score.add_argument("--head", type=Path, required=True, metavar="FILE", help="head.bin")
    score.add_argument(
        "--queries",
        type=Path,
        required=True,
        metavar="FILE",
        help="a query a line, none is a comment; or .jsonl with objects that have a query, or labelled rows",
    )
    for each in (train, score):
        each.add_argument("--task", type=Path, metavar="FOLDER", help="folder of the task; by default task/")


def _margin(given: str) -> float:
    """Return a margin, within the limits of its setting."""
    try:
        margin = float(given)
    except ValueError:
        margin = math.nan
    if not 0 < margin <= 1:
        raise argparse.ArgumentTypeError(f"found {given}, expected a number above 0, at most 1")
    return margin


def run(options: argparse.Namespace) -> int:
    """Train a head, or let one answer; return 0."""
    task = Task.load(options.task)
    if options.action == "train":
        margins = Margins(options.margin_error, options.margin_dominant)
        report = train(options.training, options.holdout, options.out, task, margins, options.task)
        say(console(), *told(report, options.out))
        return 0
    try:
        for line in score(options.head, options.queries, task):
            out(line)
    except BrokenPipeError:
        drop_output()
    return 0


def train(
    training: Path, holdout: Path, folder: Path, task: Task, margins: Margins, task_folder: Path | None = None
) -> dict[str, Any]:
    """Train a head, choose its threshold, write head.bin and head.json; return the report.

    Args:
        training: labelled rows in Bedrock's conversation format.
        holdout: rows of the same kind. The student's answers are taken to be theirs.
        folder: for the two files; created if it does not exist.
        task: of both files.
        margins: how much worse all answers may become by the head's.
        task_folder: has the task's `defer.txt` and `robustness.toml`. Default: the project's.

    Raises:
        OperateError: A file can't be read, or has no labelled rows.
    """
    rows, held_out = _examples(training, task), _examples(holdout, task)
    begun = time.monotonic()
    trained = _trained([Labelled(row.query, (row.weights,)) for row in rows], task, task_folder)
    head = Head.read(artifact.write(trained, threshold=None, about={}), task.labels)
    asked = list(questions(held_out, task, Robustness.load(task, task_folder), _SLICE_QUERIES))
    tested = Tested(head, asked, {question.id: _right(question) for question in asked}, task)
    found = calibrate(tested.cases(), margins.error, margins.dominant, len(task.labels))
    content = artifact.write(trained, threshold=found.threshold, about={})
    report = {
        "bytes": len(content),
        "rows": len(rows),
        "categories": len(trained.categories),
        **trained.about,
        "seconds": round(time.monotonic() - begun, 1),
        **tested.document(found, margins, model=""),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HEAD_FILE).write_bytes(content)
        (folder / HEAD).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OperateError(f"{folder} can't be written: {error.strerror}.") from error
    return report


def score(file: Path, queries: Path, task: Task) -> Iterator[str]:
    """Yield a head's answer to each query as JSON, in the file's order.

    Raises:
        OperateError: A file can't be read, or is no head of this task.
    """
    try:
        head = Head.read(_read(file), task.labels)
    except HeadError as error:
        raise OperateError(
            f"{file} can't be used as a head: {error}.",
            advice="Train one with `python -m operate head train`, or name its task with --task.",
        ) from error
    for query in _queries(queries):
        answer = head.answer(query)
        found = {
            "query": query,
            "weights": answer.weights,
            "risk": round(answer.risk, 6) if math.isfinite(answer.risk) else None,
            "accepted": head.accepts(answer),
            "category": answer.category,
        }
        yield json.dumps(found, ensure_ascii=False)


def told(report: dict[str, Any], folder: Path) -> Iterator[str]:
    """Yield what a person should know of a trained head."""
    head, holdout = report["head"], report["holdout"]
    yield f"Wrote {folder / HEAD_FILE} ({report['bytes']:,} bytes) and {folder / HEAD}."
    yield (
        f"Trained on {report['rows']:,} rows with {report['categories']} categories in "
        f"{report['seconds']:.0f} s."
    )
    yield f"On {holdout['rows']:,} hold-out rows:"
    yield f"  mean absolute error {head['error']:.4f}, dominant label {head['dominant']:.1%} right"
    if report["threshold"] is None:
        yield f"No threshold: the head can answer only as the last resort. {report['obstacle']}"
    else:
        yield f"  sure of {report['coverage']:.0%}, those with a risk of at most {report['threshold']:.4f}"
    yield f"Let it answer: python -m operate head score --head {folder / HEAD_FILE} --queries FILE"


def _trained(rows: list[Labelled], task: Task, folder: Path | None) -> artifact.Trained:
    """Return the trained head, with progress on a terminal."""
    try:
        training = Training.start(rows, negatives(folder or default_folder()), task)
    except NoLabelsError as error:
        raise OperateError(f"{error}.") from error
    shows, passes = console().is_terminal, 0
    while not training.is_finished:
        training.run_pass()
        passes += 1
        if shows:
            err(f"training: pass {passes}")
    return training.trained()


def _right(question: Question) -> Answer:
    """Return the answer of a student that is never wrong."""
    return Answer(question.id, question.reference)


def _examples(path: Path, task: Task) -> list[Example]:
    """Return the labelled queries of a file: rows for a job, or objects with a query and its weights."""
    lines = [line for line in _read(path).decode("utf-8-sig", errors="replace").split("\n") if line.strip()]
    try:
        if lines and _has_weights(lines[0]):
            found = [_weighed(number, line, task) for number, line in enumerate(lines, start=1)]
        else:
            found = list(examples(lines, task))
    except InvalidRow as error:
        raise OperateError(f"{path}: {error}.", advice=_expected(task)) from error
    if not found:
        raise OperateError(f"{path} has no row with an answer: a head learns from labels.")
    return found


def _expected(task: Task) -> str:
    return (
        f"Each line must be a row in Bedrock's conversation format, whose answer has the task's "
        f"{len(task.labels)} weights, or an object with a query and its weights of "
        f"{', '.join(task.labels)}. Is it another task's? Name that with --task."
    )


def _has_weights(line: str) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and {"query", "weights"} <= row.keys()


def _weighed(number: int, line: str, task: Task) -> Example:
    try:
        row = json.loads(line)
        query, weights = row["query"], {str(label): float(part) for label, part in row["weights"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        problem = f"line {number}: {line!a:.60} is not an object with a query and its weights"
        raise InvalidRow(problem) from error
    if not isinstance(query, str):
        raise InvalidRow(f"line {number}: the query is a {type(query).__name__}, expected a text")
    found = weights_problem(weights, task.labels, tolerance=1e-3)
    if found is not None:
        raise InvalidRow(f"line {number}: {found}")
    return Example(query, weights)


def _queries(path: Path) -> Iterator[str]:
    """Yield the queries of a file."""
    lines = _read(path).decode("utf-8-sig", errors="replace").split("\n")
    if not any(map(str.strip, lines)):
        raise OperateError(f"{path} has no query.")
    for number, line in enumerate(lines, start=1):
        text = line.removesuffix("\r")
        if not text.strip():
            continue
        if path.suffix.lower() != ".jsonl":
            yield text
            continue
        try:
            row = json.loads(text)
            query = row["query"] if "query" in row else row["messages"][0]["content"][0]["text"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise OperateError(f"{path}: line {number} has no query: {text!a:.60}.") from error
        if not isinstance(query, str):
            raise OperateError(f"{path}: line {number} has no query, but a {type(query).__name__}.")
        yield query


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise OperateError(f"{path} doesn't exist.") from error
    except OSError as error:
        raise OperateError(f"{path} can't be read: {error.strerror}.") from error
