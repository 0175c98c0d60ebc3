"""Plain output. This and `operate.console` print everything, so that no text controls a terminal.

It needs no package, for the installer and for a quick `--help`.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator

from distilled_router.visible import visible

_QUOTED = re.compile("`[^`\n]*`")
_COMMAND = re.compile(r"\b(?:make|python|aws|cdk|grep|jq) [\w'-]")
# Holds a quoted command together.
_JOINT = "\0"


def out(text: str = "", *, end: str = "\n") -> None:
    """Print text at once."""
    print(visible(text), end=end, flush=True)


def err(text: str) -> None:
    """Print text to standard error at once, on a terminal wrapped to its width."""
    if sys.stderr.isatty():
        text = "\n".join(wrapped(text, shutil.get_terminal_size().columns))
    print(visible(text), file=sys.stderr, flush=True)


def wrapped(text: str, width: int, indent: str = "") -> Iterator[str]:
    """Yield text in lines of at most `width` columns, broken between words.

    Commands stay whole, so that they can be copied: those in backticks, and a line with another one. So does
    a line of two words, such as a path and what it is.

    Args:
        text: one line or several.
        width: columns of the terminal.
        indent: begins the lines that follow a break; by default spaces up to the line's first word.
    """
    for line in visible(text).split("\n"):
        if len(line) <= width or len(line.split()) < 3 or _COMMAND.search(_QUOTED.sub("", line)):
            yield line
            continue
        joined = _QUOTED.sub(lambda found: found.group().replace(" ", _JOINT), line)
        after = indent or " " * (len(line) - len(line.lstrip(" -")))
        for part in textwrap.wrap(
            joined, width, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
        ):
            yield part.replace(_JOINT, " ")
