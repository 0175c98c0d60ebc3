"""The terminal. This and `operate.printing` print everything, so that no text controls a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from distilled_router.visible import visible
from operate.printing import wrapped

# Wide enough for every table where no terminal says how wide it is.
PLAIN_WIDTH = 140
# So that whole names can be copied from a pipe.
UNLIMITED = 10_000


class Terminal(Console):
    """A console that prints text as it is: without markup, and with escape sequences made visible."""

    def __init__(self, *, width: int | None = None, **options: Any) -> None:
        """Print to standard output. `options` are those of rich's Console."""
        super().__init__(width=width, markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Raise the error, so that a command whose reader has ended, such as `head`, has not failed."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text for printing; the width of a table's column is measured on it."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed, also of a Text that `render_str` did not make."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def console(width: int = PLAIN_WIDTH) -> Terminal:
    """Return the console of this process, `width` columns wide if it is no terminal."""
    found = Terminal()
    return found if found.is_terminal else Terminal(width=width)


def wide(to: Terminal) -> Terminal:
    """Return a console for wide tables: as wide as the terminal, elsewhere without a limit."""
    return to if to.is_terminal else Terminal(file=to.file, width=UNLIMITED)


def say(to: Terminal, *lines: str, style: str = "", indent: str = "") -> None:
    """Print lines, on a terminal wrapped to its width as `wrapped` says; elsewhere as they are."""
    for line in lines:
        for part in wrapped(line, to.width, indent) if to.is_terminal else [line]:
            to.print(part, style=style, soft_wrap=True)
