"""A simple tokenizer, so that `usage` and `maxTokens` mean something; it is not Nova's.

A word is one token for every five letters begun, every digit is a token, and so is every other character
that is not a space. Spaces belong to the token that follows them.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\s*(?:[^\W\d_]{1,5}|\S)|\s+$")


def tokens(text: str) -> list[str]:
    """The tokens of a text; joined they are the text again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(tokens(text))


def cut(text: str, most: int) -> tuple[str, bool]:
    """The first tokens of a text, and whether anything was cut off."""
    pieces = tokens(text)
    return "".join(pieces[:most]), len(pieces) > most
