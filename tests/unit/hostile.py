"""Texts that try to control a terminal, and texts that only look unusual."""

from __future__ import annotations

import re
import unicodedata

# A window title, colours by C0 and by C1, a link, a cleared line, text in the other direction, hidden text,
# half of a character, and markup.
HOSTILE = (
    "\x1b]0;title\x07 \x1b[31mred\x9b32m \x1b]8;;https://example.com\x1b\\link \r\x1b[2K\x08\x7f\x85"
    "\u202egnp.exe\u202c \u2066x\u2069 \u200e\u200f\u061c \u200b\u2060\ufeff\u00ad "
    "\u2028\u2029 \ud800 [red]end"
)
GOOD = (
    "señor, naïve, e\u0301",
    "猫の動画 고양이 चलचित्र",
    "שלום مرحبا می\u200cخواهم",  # noqa: RUF001  # Hebrew, Arabic, Persian
    "👩\u200d👩\u200d👧 ❤\ufe0f 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "two\nlines\tand a tab",
)
# The sequences that rich writes itself: colours, and the movements of a live table.
_OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[hl]|1A|2K)|\r")


def obeyed(character: str) -> bool:
    """Return whether a terminal obeys or hides a character, by Unicode's categories: `visible` has ranges."""
    if character in "\n\t":
        return False
    joins = character in "\u200c\u200d" or "\U000e0020" <= character <= "\U000e007f"
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and not joins and character in HOSTILE)


def controls(printed: str) -> list[str]:
    """Return the characters of an output that a terminal obeys, without those of rich's own sequences."""
    return [character for character in _OWN.sub("", printed) if obeyed(character)]
