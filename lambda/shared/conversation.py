"""Rows of a data set in Bedrock's conversation format, and the labelled queries that they hold."""

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shared.task import InvalidOutput, Task

SCHEMA_VERSION = "bedrock-conversation-2024"

# Escapes: typographic quotes, ellipsis, inverted marks and middle dot.
_PUNCTUATION = str.maketrans(
    dict.fromkeys("\"'`.,;:!?()[]{}<>\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u2026\u00bf\u00a1\u00b7", " ")
)


@dataclass(frozen=True, slots=True)
class Example:
    """A query and the weights that it should get."""

    query: str
    weights: dict[str, float]


class InvalidRow(ValueError):  # noqa: N818 - named like InvalidOutput
    """A line that is no labelled row. The message names the line."""


def row(task: Task, query: str, weights: Mapping[str, float] | None) -> dict[str, Any]:
    """One training row: the student's prompt, the query, and the answer to learn.

    Without weights the row is a prompt only, which distillation takes: the teacher answers it.
    """
    messages = [{"role": "user", "content": [{"text": query}]}]
    if weights is not None:
        messages.append({"role": "assistant", "content": [{"text": task.render(weights)}]})
    return {
        "schemaVersion": SCHEMA_VERSION,
        "system": [{"text": task.student_prompt}],
        "messages": messages,
    }


def examples(lines: Iterable[str], task: Task) -> Iterator[Example]:
    """Reads the labelled queries of a data set; rows without an answer and blank lines are left out.

    Raises:
        InvalidRow: A line is no such row, or its answer holds no weights. `shared.dataset_rules` finds all
            of these at once; this is for files that have passed it.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            messages = json.loads(line)["messages"]
            query = messages[0]["content"][0]["text"]
            if not isinstance(query, str):
                raise TypeError("the query is no text")
            if len(messages) > 1:
                yield Example(query, task.parse(messages[1]["content"][0]["text"]))
        except InvalidOutput as error:
            raise InvalidRow(f"line {number}: {error}") from error
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InvalidRow(f"line {number}: no row of a data set ({type(error).__name__})") from error


def normalised(query: str) -> str:
    """The form in which two queries count as the same: letter case, spacing and punctuation apart.

    Only punctuation that carries no meaning is dropped; `c++` and `c` stay two queries.
    """
    text = query if query.isascii() else unicodedata.normalize("NFKC", query)
    text = text.casefold()
    return " ".join(text.translate(_PUNCTUATION).split()) or " ".join(text.split())
