"""Read a task's `defer.txt`: texts that are no query, which a head learns to leave to the model."""

from __future__ import annotations

from pathlib import Path

from distilled_router.links import inside
from distilled_router.task.task import DEFER_FILE, TaskError, default_folder

MOST_TEXTS = 1_000


def negatives(folder: Path | None = None) -> tuple[str, ...]:
    """Return the texts of a task's `defer.txt`, each once; none without the file.

    Blank lines, and lines that start with `#`, are no texts.

    Raises:
        TaskError: The file can't be read, or has more than MOST_TEXTS texts.
    """
    folder = folder or default_folder()
    path = folder / DEFER_FILE
    if not path.exists():
        return ()
    try:
        lines = inside(folder, DEFER_FILE).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    texts = [line.strip() for line in lines]
    found = tuple(dict.fromkeys(text for text in texts if text and not text.startswith("#")))
    if len(found) > MOST_TEXTS:
        raise TaskError(f"{path}: {len(found):,} texts, expected at most {MOST_TEXTS:,}; leave some out")
    return found
