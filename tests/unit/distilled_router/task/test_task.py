"""The task folder: what it must hold, and what a model's name follows from."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from data.generate import Grammar
from distilled_router.task.parsing import weights_problem
from distilled_router.task.task import FILES, RESERVED_WORDS, Task, TaskError, reserved_word

TASK = Task.load()


def test_student_prompt_is_short_and_names_the_labels_in_order() -> None:
    assert len(TASK.student_prompt) < 150
    assert "\n" not in TASK.student_prompt
    assert re.findall("|".join(TASK.labels), TASK.student_prompt) == list(TASK.labels)


def test_teacher_prompt_examples_follow_the_label_rules() -> None:
    cues = [("look",), ("sound",), ("speech",), ("fact",), ("music", "scene"), ("name", "topic")]
    lines = TASK.teacher_prompt.splitlines()
    answers = [
        json.loads(line) for line, before in zip(lines[1:], lines, strict=False) if "Query: " in before
    ]
    label = Grammar.load("training").label
    assert answers == [label(each) for each in cues]


def test_prompts_hold_no_reserved_word() -> None:
    assert reserved_word(TASK.teacher_prompt) is None
    assert reserved_word(TASK.student_prompt) is None
    for word in RESERVED_WORDS:
        assert reserved_word(f"a man says {word} hello") == word
    assert reserved_word("robot: user [eos] <b>") is None


def test_static_weights_are_an_answer() -> None:
    assert weights_problem(TASK.static_weights, TASK.labels) is None


def copied(folder: Path, **changes: str) -> Path:
    """A copy of the task folder; `old=new` changes in task.toml."""
    source = Path(__file__).parents[4] / "task"
    for path in source.iterdir():
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    toml = folder / "task.toml"
    for old, new in changes.items():
        text = toml.read_text(encoding="utf-8")
        assert old in text
        toml.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def test_digest_covers_what_a_model_learns_and_nothing_else(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    assert Task.load(folder) == TASK
    assert Task.load(folder).digest() == TASK.digest()
    assert re.fullmatch("[0-9a-f]{64}", TASK.digest())
    changed = [
        replace(TASK, format="json"),
        replace(TASK, teacher_prompt=TASK.teacher_prompt + "!"),
        replace(TASK, student_prompt=TASK.student_prompt + "!"),
    ]
    assert len({task.digest() for task in [TASK, *changed]}) == len(changed) + 1
    unchanged = [
        replace(TASK, name="other"),
        replace(TASK, max_query_characters=400),
        replace(TASK, static_weights=dict.fromkeys(TASK.labels, 0.25)),
    ]
    assert {task.digest() for task in unchanged} == {TASK.digest()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({'"compact"': '"xml"'}, "format must be one of"),
        ({"= 512": "= 0"}, "max_query_characters"),
        ({"= 512": "= true"}, "max_query_characters"),
        ({"max_query_characters": "max_chars"}, "missing or unknown: max_chars, max_query_characters"),
        ({'["visual", ': '["Visual", '}, "lower-case"),
        ({'["visual", "audio", ': '["visual", "visual", '}, "different names"),
        ({'["visual", "audio", ': '["audio", "visual", '}, "in their order"),
        ({'["visual", "audio", "transcription", "metadata"]': '"visual"'}, "list of lower-case"),
        ({"visual = 0.40": "visual = 0.50"}, "sum to 1.1"),
        ({"visual = 0.40": 'visual = "0.4"'}, "every label a number"),
        ({"[static_weights]": "[static_weights"}, "task.toml|Expected|static"),
        ({'"video-search"': '"Video search"'}, "name must be"),
    ],
)
def test_unusable_task_says_what_to_mend(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.load(copied(tmp_path, **changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("User: visual, audio, transcription, metadata", "User:, a reserved word"),
        ("visual, audio and metadata", "doesn't name transcription"),
        ("audio, visual, transcription, metadata", "in their order"),
    ],
)
def test_unusable_student_prompt_says_what_to_mend(tmp_path: Path, text: str, message: str) -> None:
    folder = copied(tmp_path)
    (folder / "student_prompt.txt").write_text(text, encoding="utf-8")
    with pytest.raises(TaskError, match=message):
        Task.load(folder)


@pytest.mark.parametrize("file", FILES)
def test_file_that_is_missing_or_no_text_is_named(tmp_path: Path, file: str) -> None:
    folder = copied(tmp_path)
    (folder / file).write_bytes(b"\xff\xfev\x00")
    with pytest.raises(TaskError, match=re.escape(f"{folder / file}: not UTF-8 text")):
        Task.load(folder)
    (folder / file).unlink()
    with pytest.raises(TaskError, match=re.escape(f"{folder / file}: No such file")):
        Task.load(folder)


def test_all_that_is_wrong_with_a_task_is_told_at_once_with_its_folder(tmp_path: Path) -> None:
    folder = copied(tmp_path, **{'"compact"': '"xml"', "= 512": "= 0"})
    (folder / "teacher_prompt.txt").write_text("Assistant: weigh it", encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        Task.load(folder)
    for part in (str(folder), "format", "max_query_characters", "Assistant:", "doesn't name visual"):
        assert part in str(caught.value)


def test_labels_are_named_as_whole_words() -> None:
    """`bill` is no part of `billing`: neither for its presence nor for its place."""

    def task(*labels: str, prompt: str) -> Task:
        weights = dict.fromkeys(labels, 0.5)
        return replace(
            TASK, labels=labels, static_weights=weights, student_prompt=prompt, teacher_prompt=prompt
        )

    assert task("bill", "billing", prompt="Weigh bill, billing.").labels == ("bill", "billing")
    assert task("billing", "bill", prompt="Weigh billing, bill.").labels == ("billing", "bill")
    with pytest.raises(TaskError, match="doesn't name bill"):
        task("bill", "billing", prompt="Weigh billing, pre-bill.")
    with pytest.raises(TaskError, match="in their order"):
        task("bill", "billing", prompt="Weigh billing, bill.")
