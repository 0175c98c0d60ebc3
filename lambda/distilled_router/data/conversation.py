"""Rows of a data set in Bedrock's conversation format, and the labelled queries that they hold."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from distilled_router.task.task import InvalidOutput, Task

SCHEMA_VERSION = "bedrock-conversation-2024"
# Characters of a query; a data set that is nothing but longer ones must not fill the memory.
LONGEST_KEY = 1_000

_PLAIN_PUNCTUATION = b"\"'`.,;:!?()[]{}<>"
_SPACES = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_WITHOUT_PUNCTUATION = bytes.maketrans(_PLAIN_PUNCTUATION, b" " * len(_PLAIN_PUNCTUATION))
# Escapes: typographic quotes, ellipsis, inverted marks and middle dot.
_PUNCTUATION = re.compile(
    f"[{re.escape(_PLAIN_PUNCTUATION.decode())}"
    "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u2026\u00bf\u00a1\u00b7]"
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
        InvalidRow: A line is no such row, or its answer holds no weights. `data.dataset_rules` finds all
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
    if query.isascii():
        # The same by a table of bytes: faster, for nearly every query.
        text = query.lower()
        form = text.encode().translate(_WITHOUT_PUNCTUATION).decode()
    else:
        text = unicodedata.normalize("NFKC", query).casefold()
        form = _PUNCTUATION.sub(" ", text)
    return " ".join(form.split()) or " ".join(text.split())


def query_key(query: str) -> str | bytes:
    """What stands for a query where many are remembered: its normalised form; of a long one a digest, to
    which spaces don't count either."""
    if len(query) <= LONGEST_KEY:
        return normalised(query)
    if query.isascii():
        form = query.lower().encode().translate(None, _PLAIN_PUNCTUATION + _SPACES)
    else:
        form = normalised(query).replace(" ", "").encode(errors="surrogatepass")
    return blake2b(form, digest_size=16).digest()
