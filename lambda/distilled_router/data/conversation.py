"""Write and read rows of a data set in Bedrock's conversation format, and normalise their queries."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from distilled_router.task.task import InvalidOutput, Task

SCHEMA_VERSION = "bedrock-conversation-2024"
COUNT = "count"
"""Key of a hold-out row's traffic: how often its query was asked. Rows for Bedrock have none."""
# Characters of a query; a data set of longer ones only must not fill the memory.
LONGEST_KEY = 1_000

_PLAIN_PUNCTUATION = b"\"'`.,;:!?()[]{}<>"
_SPACES = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
_WITHOUT_PUNCTUATION = bytes.maketrans(_PLAIN_PUNCTUATION, b" " * len(_PLAIN_PUNCTUATION))
# The escapes are typographic quotes, ellipsis, inverted marks and middle dot.
_PUNCTUATION = re.compile(
    f"[{re.escape(_PLAIN_PUNCTUATION.decode())}"
    "\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u2026\u00bf\u00a1\u00b7]"
)

# Soft hyphen, direction marks, byte order mark and the style of emoji: nobody sees or types them. Joiners
# stay, since Persian words and families of emoji differ by them.
_INVISIBLE = re.compile("[\u00ad\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe0e\ufe0f\ufeff]")
_ZERO_WIDTH_SPACE = "\u200b"


@dataclass(frozen=True, slots=True)
class Example:
    """A query, its reference weights, and how often it was asked."""

    query: str
    weights: dict[str, float]
    count: float = 1


class InvalidRow(ValueError):  # noqa: N818 - named like InvalidOutput
    """A line is not a labelled row. The message names the line."""


def row(task: Task, query: str, weights: Mapping[str, float] | None, count: float = 1) -> dict[str, Any]:
    """Return a training row: the student's prompt, the query, and the answer to learn.

    Without weights the row has no answer, which distillation accepts: the teacher answers it. With a count
    other than 1 it is a hold-out row.
    """
    messages = [{"role": "user", "content": [{"text": query}]}]
    if weights is not None:
        messages.append({"role": "assistant", "content": [{"text": task.render(weights)}]})
    return {
        "schemaVersion": SCHEMA_VERSION,
        "system": [{"text": task.student_prompt}],
        "messages": messages,
        **({COUNT: count} if count != 1 else {}),
    }


def examples(lines: Iterable[str], task: Task) -> Iterator[Example]:
    """Yield the labelled queries of a data set; rows without an answer and blank lines are left out.

    Raises:
        InvalidRow: A line is not such a row, or its answer contains no weights. Use it for files that
            `data.dataset_rules` has checked, which reports all problems at once.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            messages = row["messages"]
            query = messages[0]["content"][0]["text"]
            if not isinstance(query, str):
                raise TypeError("the query is not a text")
            if len(messages) > 1:
                weights = task.parse(messages[1]["content"][0]["text"])
                yield Example(query, weights, row.get(COUNT, 1))
        except InvalidOutput as error:
            raise InvalidRow(f"line {number}: {error}") from error
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidRow(f"line {number}: not a row of a data set ({type(error).__name__})") from error


def queries_of(lines: Iterable[str]) -> Iterator[str]:
    """Yield the query of every row, also of one without an answer.

    Raises:
        InvalidRow: A line is not a row.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield str(json.loads(line)["messages"][0]["content"][0]["text"])
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise InvalidRow(
                    f"line {number}: not a row of a data set ({type(error).__name__})"
                ) from error


def normalised(query: str) -> str:
    """Return a query without differences of letter case, spacing and punctuation.

    Two queries with the same result count as the same. Only punctuation without meaning is dropped: `c++` and
    `c` stay different.
    """
    if query.isascii():
        # Does the same by a table of bytes, which is faster and suits nearly every query.
        text = query.lower()
        form = text.encode().translate(_WITHOUT_PUNCTUATION).decode()
    else:
        visible = _INVISIBLE.sub("", query).replace(_ZERO_WIDTH_SPACE, " ")
        text = unicodedata.normalize("NFKC", visible).casefold()
        form = _PUNCTUATION.sub(" ", text)
    return " ".join(form.split()) or " ".join(text.split()) or query.strip()


def query_key(query: str) -> str | bytes:
    """Return a short key of a query for sets of many: its normalised form, or the digest of a long one.

    The digest ignores spaces, too.
    """
    if len(query) <= LONGEST_KEY:
        return normalised(query)
    if query.isascii():
        form = query.lower().encode().translate(None, _PLAIN_PUNCTUATION + _SPACES)
    else:
        form = normalised(query).replace(" ", "").encode(errors="surrogatepass")
    return blake2b(form, digest_size=16).digest()
