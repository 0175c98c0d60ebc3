"""The terminal, and text that is printed as it is."""

from __future__ import annotations

from rich.console import Console

# Wide enough for every table where no terminal says how wide it is.
PLAIN_WIDTH = 140
# So that whole names can be copied from a pipe.
UNLIMITED = 10_000


def console(width: int = PLAIN_WIDTH) -> Console:
    """Return the console of this process, `width` columns wide if it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=width)


def say(to: Console, *lines: str, style: str = "") -> None:
    """Print lines without markup, colours of numbers or line breaks of our own."""
    for line in lines:
        to.print(line, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)
