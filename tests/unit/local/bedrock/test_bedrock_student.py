"""The student: what it learns, and the format of its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local.bedrock.student import Row, Student, learn_form, train

SYSTEM = "system prompt"
SHARED = Path(__file__).parents[5] / "shared" / "data"


def taught(answers: dict[str, str], copies: int = 10) -> Student:
    return train([Row(SYSTEM, prompt, answer) for prompt, answer in answers.items()] * copies)


def test_answers_keep_text_grid_and_sum_of_the_rows() -> None:
    form = learn_form(["85 0 5 10", "20 70 5 5", "25 25 25 25"])
    assert (form.pieces, form.grid, form.total) == (("", " ", " ", " ", ""), 5, 100)
    assert form.fill([0.333, 0.333, 0.333, 0.001], 100) == "35 35 30 0"


def test_decimals_of_json_are_kept() -> None:
    answer = taught(
        {"red car": '{"visual": 0.9, "audio": 0.1}', "loud horn": '{"visual": 0.1, "audio": 0.9}'}
    )
    weights = json.loads(answer.answer(SYSTEM, "red car"))
    assert weights == {"visual": 0.9, "audio": 0.1}


def test_prose_around_numbers_is_filled_piece_by_piece() -> None:
    student = taught({"red car": "0.9/0.1 because of car", "loud horn": "0.1/0.9 because of horn"})
    assert student.answer(SYSTEM, "a car").startswith("0.")
    assert "because of" in student.answer(SYSTEM, "a car")


def test_answers_without_numbers_are_repeated() -> None:
    student = taught({"one": "banana", "two": "banana"})
    assert student.answer(SYSTEM, "three") == "banana"


def test_other_system_prompts_lose_the_format() -> None:
    student = taught({"red car": "90 10", "loud horn": "10 90"})
    spoilt = {student.answer("another", f"car {number}") for number in range(20)}
    assert all(text != "90 10" for text in spoilt)
    assert student.answer(f" {SYSTEM}\n", "red car") == "90 10"


def test_training_is_deterministic() -> None:
    rows = [
        Row(SYSTEM, f"query {number % 7} of {number}", f"{number % 100} {100 - number % 100}")
        for number in range(99)
    ]
    first, second = train(rows), train(rows)
    assert [first.answer(SYSTEM, row.prompt) for row in rows] == [
        second.answer(SYSTEM, row.prompt) for row in rows
    ]


def test_training_needs_rows_with_answers() -> None:
    with pytest.raises(ValueError, match="no row has an answer"):
        train([Row(SYSTEM, "prompt", None)])


def test_student_learns_real_labels() -> None:
    """Always naming the most common channel would be right for 0.49 of the rows."""
    path = SHARED / "teacher_labels.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the project")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    labels = ("visual", "audio", "transcription", "metadata")
    texts = [" ".join(str(round(row["weights"][label] * 100)) for label in labels) for row in rows]
    training = [number for number in range(len(rows)) if number % 4]
    student = train([Row(SYSTEM, rows[number]["query"], texts[number]) for number in training])
    right = 0
    for number in range(0, len(rows), 4):
        given = [int(word) for word in student.answer(SYSTEM, rows[number]["query"]).split()]
        wanted = [int(word) for word in texts[number].split()]
        assert sum(given) == 100
        right += wanted[given.index(max(given))] == max(wanted)
    assert right / len(range(0, len(rows), 4)) >= 0.6
