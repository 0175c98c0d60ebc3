"""Tables and lists of the report page. Cells are HTML; `wording.text` escapes text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.wording import text

NO_ROWS = '<p class="note">None.</p>'


def code(value: object) -> str:
    """Return an identifier as HTML code; empty if there is none."""
    return f"<code>{text(value)}</code>" if value else ""


def definitions(items: Mapping[str, str]) -> str:
    """Return a definition list of HTML names and values."""
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in items.items())}</dl>"


def table(
    label: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    head: str = "",
    kind: str = "numbers stacked",
) -> str:
    """Return a table of HTML cells.

    Args:
        label: the table's name.
        columns: their names as HTML without elements, which a narrow screen shows beside each cell.
        rows: the cells; the first of a row is its heading.
        head: the rows of the head, if it is not the columns.
        kind: the table's classes. Without `stacked`, it keeps its columns on a narrow screen.
    """
    if not rows:
        return NO_ROWS
    head = head or f"<tr>{''.join(f'<th scope="col">{name}</th>' for name in columns)}</tr>"
    body = []
    for row in rows:
        first, *cells = (f'data-label="{name}">{cell}' for name, cell in zip(columns, row, strict=True))
        body.append(f'<tr><th scope="row" {first}</th>{"".join(f"<td {cell}</td>" for cell in cells)}</tr>')
    return scrolled(label, f"<thead>{head}</thead>", body, kind)


def scrolled(label: str, head: str, rows: Sequence[str], kind: str) -> str:
    """Return a table in a region that scrolls horizontally, also by keyboard."""
    body = "\n".join(rows)
    return (
        f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0">'
        f'<table class="{kind}" aria-label="{text(label)}">{head}<tbody>\n{body}\n</tbody></table></div>'
    )
