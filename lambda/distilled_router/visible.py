"""Text from elsewhere, made safe to print: queries, models, messages of AWS, table items, file names."""

from __future__ import annotations

import re

# What a terminal obeys, or hides. Line feed and tab stay, and so do letters of every script, accents
# and emoji, with their joiners (U+200C, U+200D).
_OBEYED = re.compile(
    "["
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1: escape sequences, carriage return, backspace
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # turn the direction of the text around them
    r"\u00ad\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb"  # invisible
    r"\u2028\u2029"  # line and paragraph separators
    r"\ud800-\udfff"  # halves of characters, such as undecodable bytes of a file name; they can't be printed
    "]"
)


def visible(text: str) -> str:
    r"""Return text in which every character is shown that a terminal would obey or hide.

    Such a character is written as in JSON, so that JSON stays JSON.

    >>> print(visible("an \x1b[31mescape sequence"))
    an \u001b[31mescape sequence
    """
    return _OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
