"""A simple tokenizer for `usage` and `maxTokens`; it is not Nova's.

A word has one token for each five letters or part of them. Every digit and every other character except
spaces is a token. Spaces belong to the token that follows them.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\s*(?:[^\W\d_]{1,5}|\S)|\s+$")


def tokens(text: str) -> list[str]:
    """Return the tokens of a text; joined, they are the text again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """Return the number of tokens in a text."""
    return len(tokens(text))


def cut(text: str, most: int) -> tuple[str, bool]:
    """Return a text cut to a number of tokens, and whether anything was cut off."""
    pieces = tokens(text)
    return "".join(pieces[:most]), len(pieces) > most
