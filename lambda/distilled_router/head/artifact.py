"""Write and read a head's file: one line of JSON, then a row of bytes for each feature.

The line starts with the SHA-256 of all that follows it, so a changed byte anywhere is found. The file has no
text of a query.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distilled_router.head import features
from distilled_router.head.categories import MOST_CATEGORIES

FORMAT = 1
MOST_BYTES = 1_000_000
MIDDLE = 128
"""The byte of weight 0."""
MOST_LONGEST = 10_000
"""Of a head's longest trained query. No task allows longer queries."""

_START = b'{"sha256": "'
_HASH = slice(len(_START), len(_START) + 64)
_MOST_LINE = 32_768


class HeadError(ValueError):
    """A file is no usable head. The message says what was found."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained head.

    Attributes:
        labels: the task's.
        categories: a weight for each label.
        rows: a byte for each feature and column, feature by feature: MIDDLE plus the weight in units of
            `scale`. Columns are the categories, then "defer".
        scale: weight of one step of a byte.
        longest: characters of the longest trained query.
        about: what the report says of the training.
    """

    labels: tuple[str, ...]
    categories: tuple[tuple[float, ...], ...]
    rows: bytes
    scale: float
    longest: int
    about: Mapping[str, Any]

    @property
    def columns(self) -> int:
        return len(self.categories) + 1


def write(trained: Trained, *, threshold: float | None, about: Mapping[str, Any]) -> bytes:
    """Return a head's file.

    Args:
        trained: the head.
        threshold: largest risk at which the head answers first; None if it is a last resort only.
        about: further values for the first line, such as digests of what the head was trained on.

    Raises:
        HeadError: The file would be larger than MOST_BYTES.
    """
    line = {
        "format": FORMAT,
        "features": features.VERSION,
        "labels": trained.labels,
        "categories": trained.categories,
        "scale": trained.scale,
        "longest": trained.longest,
        "threshold": threshold,
        "about": {**trained.about, **about},
        "bytes": len(trained.rows),
    }
    rest = ('", ' + json.dumps(line)[1:] + "\n").encode() + trained.rows
    content = _START + hashlib.sha256(rest).hexdigest().encode() + rest
    if len(content) > MOST_BYTES or len(content) - len(trained.rows) > _MOST_LINE:
        raise HeadError(f"the head has {len(content):,} bytes, expected at most {MOST_BYTES:,}")
    return content


def read(content: bytes, labels: tuple[str, ...]) -> tuple[Trained, float | None]:
    """Return the head of a file, and its threshold.

    Raises:
        HeadError: It is not a whole and unchanged head of this version for these labels.
    """
    if not 0 < len(content) <= MOST_BYTES:
        raise HeadError(f"{len(content):,} bytes, expected 1 to {MOST_BYTES:,}")
    rest = memoryview(content)[_HASH.stop :]
    if not content.startswith(_START) or content[_HASH] != hashlib.sha256(rest).hexdigest().encode():
        raise HeadError("its SHA-256 is not that in its first line: it was cut off or changed, or is no head")
    end = content.find(b"\n", 0, _MOST_LINE) + 1
    try:
        line = json.loads(content[:end])
        if (line["format"], line["features"]) != (FORMAT, features.VERSION):
            raise HeadError(
                f"format {line['format']!a:.20} with features {line['features']!a:.20}, expected {FORMAT} "
                f"with {features.VERSION}: another version of the project trained it"
            )
        if line["labels"] != list(labels):
            raise HeadError(f"labels {line['labels']!a:.500}, expected {list(labels)}: of another task")
        return _checked(line, content[end:], labels)
    except HeadError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise HeadError(f"the first line is not a head's ({type(error).__name__})") from error


def _checked(line: Mapping[str, Any], rows: bytes, labels: tuple[str, ...]) -> tuple[Trained, float | None]:
    """Return what a first line and rows say."""
    categories = tuple(tuple(map(_number, category)) for category in line["categories"])
    if not 1 <= len(categories) <= MOST_CATEGORIES:
        raise HeadError(f"{len(categories)} categories, expected 1 to {MOST_CATEGORIES}")
    for category in categories:
        if len(category) != len(labels) or min(category) < 0 or abs(sum(category) - 1) > 1e-3:
            raise HeadError(f"category {category[:20]}, expected {len(labels)} weights whose sum is 1")
    expected = features.BUCKETS * (len(categories) + 1)
    if not len(rows) == line["bytes"] == expected:
        raise HeadError(f"{len(rows):,} bytes of weights, expected {expected:,}")
    scale, longest, threshold, about = (line[name] for name in ("scale", "longest", "threshold", "about"))
    if not 0 < _number(scale) <= 1e3:
        raise HeadError(f"scale {scale}, expected more than 0, and at most 1000")
    if type(longest) is not int or not 0 <= longest <= MOST_LONGEST:
        raise HeadError(f"longest {longest!a:.20}, expected a number of characters up to {MOST_LONGEST:,}")
    if threshold is not None and not 0 <= _number(threshold) <= 1e3:
        raise HeadError(f"threshold {threshold}, expected null or a risk")
    if not isinstance(about, dict):
        raise HeadError(f"about {type(about).__name__}, expected an object")
    found = Trained(
        labels=labels,
        categories=categories,
        rows=rows,
        scale=float(scale),
        longest=longest,
        about=about,
    )
    return found, None if threshold is None else float(threshold)


def _number(value: object) -> float:
    """Return a finite number of a first line."""
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # by the line
        raise TypeError(f"{value!a:.50} is not a finite number")
    return float(value)  # type: ignore[arg-type]
