"""Lay out the folder of a new task: labels, prompts, texts that test it, settings.

The mark [EDIT: ...] shows where you have to describe your labels. Nothing is
deployed while a prompt has one.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from string import Template

from distilled_router.head.defer import negatives
from distilled_router.task.parsing import apportioned
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import DEFER_FILE, FILES, ROBUSTNESS_FILE, Task, TaskError
from operate.console import console, say
from operate.errors import OperateError
from stacks.settings import ENVIRONMENTS, MAXIMUM_FULL_NAME, PROJECT, is_inside

EXAMPLES = """\
  python -m operate new-task support --labels billing,technical,account
  python -m operate new-task mail --labels private,work --folder tasks/post
"""
TEMPLATES = Path(__file__).parent / "task_template"
WRITTEN = (*FILES, ROBUSTNESS_FILE, DEFER_FILE, "README.md")
SETTINGS_FILE = "dev.toml"
# Of the teacher, as in the prompts of task/ and examples/helpdesk/.
_EXAMPLES = 6
_MOST_QUERY_CHARACTERS = 512
_WIDTH = 80
# What a new task has instead of these parts of environments/dev.toml.
_NAME = re.compile(r"^name = .*\n", re.MULTILINE)
_DATASET = re.compile(r"^\[dataset\]\n(?:\w.*\n)+", re.MULTILINE)
# What the sample data can show.
_GATE = re.compile(r"^minimum_examples = .*\n(?:#.*\n)+non_inferiority_margin = .*\n", re.MULTILINE)
_SCHEMA = re.compile(r"^#:schema .*\n")
# Such a path needs no quotes in a shell, in make or in TOML, and is not hidden.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_NUMBERS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_LANGUAGES = (
    "eine Frage zu {label}",
    "una pregunta sobre {label}",
    "une question sur {label}",
    "una domanda su {label}",
    "uma pergunta sobre {label}",
    "вопрос про {label}",
    "{label}についての質問",
    "关于{label}的问题",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", help="name of the task: lower-case letters, digits, - and _")
    parser.add_argument(
        "--labels",
        required=True,
        metavar="LABEL,LABEL",
        help="2 to 20 labels in the order of the student's numbers, separated by commas",
    )
    parser.add_argument(
        "--folder", metavar="FOLDER", help="new folder, relative to the project; by default tasks/NAME"
    )


def run(options: argparse.Namespace) -> int:
    """Write the folder and print the next steps; return 0."""
    labels = tuple(label.strip() for label in options.labels.split(","))
    folder = options.folder if options.folder is not None else f"tasks/{options.name}"
    created = lay_out(options.name, labels, folder, PROJECT)
    say(console(), *next_steps(options.name, labels, created))
    return 0


def lay_out(name: str, labels: Sequence[str], folder: str, project: Path) -> str:
    """Write a task's folder, all of its files or nothing; return the folder as the settings name it.

    Args:
        name: name of the task.
        labels: labels in the order of the student's numbers.
        folder: new folder, relative to the project.
        project: the folder that paths in the settings are relative to.

    Raises:
        OperateError: Name, labels or folder can't be used, or the folder can't be written.
    """
    try:
        values = _values(name, labels)
    except TaskError as error:
        raise OperateError(
            f"No task can have this name and these labels: {error}.",
            advice="Nothing was written. Choose others, such as "
            "NAME=support LABELS=billing,technical,account.",
        ) from error
    path = _new(folder, project)
    relative = path.relative_to(project).as_posix()
    contents = {
        file: Template((TEMPLATES / file).read_text(encoding="utf-8")).substitute(values, folder=relative)
        for file in WRITTEN
    }
    contents[SETTINGS_FILE] = settings_text(name, relative)
    _write(path, contents, project)
    return relative


def _values(name: str, labels: Sequence[str]) -> dict[str, str]:
    """Return what the templates leave open.

    Raises:
        TaskError: No task can have this name or these labels.
    """
    listed = ", ".join(labels)
    different = tuple(dict.fromkeys(labels))
    parts = zip(different, apportioned([1.0] * len(different), 100), strict=True)
    task = Task(
        name=name,
        labels=tuple(labels),
        format="compact",
        max_query_characters=_MOST_QUERY_CHARACTERS,
        static_weights={label: part / 100 for label, part in parts},
        # The prompts of the templates name the labels in this order, too.
        teacher_prompt=listed,
        student_prompt=listed,
    )
    return {
        "name": name,
        "number": _NUMBERS[len(labels) - 2],
        "labels": _array(labels),
        "listed": listed,
        "compact": task.render(_weights(task, {labels[0]: 1.0})),
        "weights": "\n".join(f"{label} = {weight:.2f}" for label, weight in task.static_weights.items()),
        "descriptions": "\n".join(
            f"- {label}: [EDIT: what a query for {label} is about. Its things, wishes and words.]"
            for label in labels
        ),
        "zeros": json.dumps(_weights(task, {})),
        "examples": "\n".join(_examples(task)),
        "languages": "\n\n".join(_languages(task)),
    }


def _weights(task: Task, given: Mapping[str, float]) -> dict[str, float]:
    return {label: given.get(label, 0.0) for label in task.labels}


def _array(labels: Sequence[str]) -> str:
    """Return labels as an array of TOML, a label a line if they are many."""
    line = json.dumps(list(labels))
    if len(line) <= _WIDTH:
        return line
    return "\n".join(["[", *(f'    "{label}",' for label in labels), "]"])


def _examples(task: Task) -> Iterator[str]:
    """Yield the lines of the teacher's examples: queries to write, with answers that fit them."""
    for label in task.labels[: _EXAMPLES - 1]:
        yield f"Query: [EDIT: a query that only {label} can serve]"
        yield json.dumps(_weights(task, {label: 1.0}))
    first, second = task.labels[:2]
    yield f"Query: [EDIT: a query that is about {first} first, and about {second}, too]"
    yield json.dumps(_weights(task, {first: 0.7, second: 0.3}))


def _languages(task: Task) -> Iterator[str]:
    """Yield tables with a query in each language, for the labels in turn."""
    for number, text in enumerate(_LANGUAGES):
        label = task.labels[number % len(task.labels)]
        weights = ", ".join(f"{name} = {weight:.1f}" for name, weight in _weights(task, {label: 1.0}).items())
        query = text.replace("{label}", re.sub(r"[_-]+", " ", label).strip())
        yield f'[[other_languages]]\nquery = "{query}"\nweights = {{ {weights} }}'


def _new(folder: str, project: Path) -> Path:
    """Return the path of a folder that does not exist yet.

    Raises:
        OperateError: It exists, is outside the project, or has a name that a shell or the settings would
            read otherwise.
    """
    advice = "Nothing was written. Name a new folder in the project, such as FOLDER=tasks/support."
    if not folder or not all(map(_PART.fullmatch, Path(folder).parts)) or not is_inside(folder, project):
        raise OperateError(
            f"The folder {folder!r} can't be used: it must be inside the project and relative to its root, "
            "of parts with 1 to 100 of A-Z, a-z, 0-9, ., - and _, none beginning with . or -.",
            advice=advice,
        )
    path = project / folder
    if path.exists() or path.is_symlink():
        raise OperateError(f"{folder} exists already.", advice=advice)
    return path


def _write(path: Path, contents: Mapping[str, str], project: Path) -> None:
    """Write the files of a new folder and load them; remove it if anything fails, or is interrupted."""
    parents = [each for each in path.parents if each.is_relative_to(project) and not each.exists()]
    is_ours = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
        is_ours = True
        for name, content in contents.items():
            (path / name).write_text(content, encoding="utf-8")
        Robustness.load(Task.load(path), path)
        negatives(path)
    except BaseException as error:
        if is_ours:
            shutil.rmtree(path, ignore_errors=True)
        for each in parents:
            with suppress(OSError):  # another command has written there
                each.rmdir()
        if isinstance(error, OSError):
            raise OperateError(
                f"{path} can't be written: {error.strerror}.", advice="Nothing was left behind."
            ) from error
        raise


def next_steps(name: str, labels: Sequence[str], folder: str) -> Iterator[str]:
    """Yield what to do with a new folder."""
    yield f"Created {folder} with {len(labels)} labels: {', '.join(labels)}."
    settings = f"{folder}/{SETTINGS_FILE}"
    yield from (
        "",
        "1. Describe your labels in the prompts. This lists what to edit:",
        f"     grep -n EDIT: {folder}/*.t*",
        "2. Put your data beside them: raw queries, one a line, as queries.txt; or",
        "   labelled rows as training.jsonl and holdout.jsonl (docs/data.md), and",
        "   change [dataset] in the settings:",
        f"     {settings}",
        "3. Check the data:",
        f"     make dataset-check FILE={folder}/queries.txt \\",
        f"       FOR={settings}",
        "4. Deploy it on this machine:",
        f"     make local ENV={settings}",
        "5. For AWS, set account, tags and e-mail in the settings. See what it would",
        "   create and cost:",
        f"     make synth ENV={settings}",
        f"     make cost ENV={settings}",
    )


def settings_text(name: str, folder: str) -> str:
    """Return the settings of a task's first environment: those of environments/dev.toml, with this task."""
    text = (ENVIRONMENTS / SETTINGS_FILE).read_text(encoding="utf-8")
    router = re.sub(r"[^a-z0-9]+", "-", name)[: MAXIMUM_FULL_NAME - len("-router-dev")].strip("-")
    dataset = (
        "[dataset]\n"
        'source = "file"\n'
        "# Raw queries, which the teacher labels. If you have labelled rows, remove these two lines.\n"
        'labels = "teacher"\n'
        f'queries = "{folder}/queries.txt"\n'
        "# Then uncomment these:\n"
        f'# training = "{folder}/training.jsonl"\n'
        f'# holdout = "{folder}/holdout.jsonl"\n'
        "\n"
        "[labelling]\n"
        "# Held out for the evaluation. With many queries, 0.1 is enough.\n"
        "holdout_share = 0.2\n"
    )
    gate = (
        "# For a first try: few rows show only large differences. `make dataset-check FOR=...` says which.\n"
        "minimum_examples = 50\n"
        "non_inferiority_margin = 0.12\n"
    )
    for part, new in (
        (_SCHEMA, f"#:schema {'../' * len(Path(folder).parts)}environments/schema.json\n"),
        (_NAME, f'name = "{router}-router"\ntask = "{folder}"\n'),
        (_DATASET, dataset),
        (_GATE, gate),
    ):
        text = part.sub(new, text, count=1)
    return text
