from __future__ import annotations

from pathlib import Path

import pytest

from distilled_router.data.similarity import Neighbours
from distilled_router.head.defer import MOST_TEXTS, negatives
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task, TaskError

PROJECT = Path(__file__).resolve().parents[4]
FOLDERS = (PROJECT / "task", PROJECT / "examples" / "helpdesk")


def test_comments_blank_lines_and_repeats_are_no_texts(tmp_path: Path) -> None:
    (tmp_path / "defer.txt").write_text("\ufeff# comment\n\n set an alarm \r\nhello\nset an alarm\n")

    assert negatives(tmp_path) == ("set an alarm", "hello")


def test_without_the_file_there_are_no_texts(tmp_path: Path) -> None:
    assert negatives(tmp_path) == ()


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "defer.txt"
    path.write_bytes(b"hello\n\xff")
    with pytest.raises(TaskError, match=r"defer\.txt: not UTF-8"):
        negatives(tmp_path)
    path.write_text("\n".join(f"text {number}" for number in range(MOST_TEXTS + 1)))
    with pytest.raises(TaskError, match=r"1,001 texts, expected at most 1,000"):
        negatives(tmp_path)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(TaskError, match="a link leads out"):
        negatives(tmp_path)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.name))
def test_own_texts_are_none_of_those_that_judge(folder: Path) -> None:
    texts = negatives(folder)
    judging = Neighbours(Robustness.load(Task.load(folder), folder).out_of_domain)

    assert 50 <= len(texts) <= 100
    assert not [text for text in texts if judging.nearest(text) is not None]
