"""Read how often a query was asked, as spreadsheets and databases write numbers."""

import re

from distilled_router.data.line_rules import LineProblem, shown

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
# 1,234 and 1 234; of points at least two, because 1.234 may be a fraction.
_GROUPED = re.compile(
    r"[1-9][0-9]{0,2}(?:(?:([,'\u2019 \xa0\u2009\u202f])[0-9]{3})(?:\1[0-9]{3})*|(?:\.[0-9]{3}){2,})"
)
_MOST_COUNT = 1e15
_IN_DOUBT = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")


def is_number(cell: str) -> bool:
    """Return whether a cell of a table is a number."""
    return value_of(cell) is not None


def value_of(cell: str) -> float | None:
    """Return the number that a cell has, with or without separators of thousands; None if it has none."""
    text = cell.strip()
    if _GROUPED.fullmatch(text):
        return float(re.sub("[^0-9]", "", text))
    return float(text) if _NUMBER.fullmatch(text) else None


def count_of(found: float | str, name: str) -> float:
    """Return a count, as a whole number where it is one.

    Raises:
        LineProblem: It is no number above 0, or may be two different ones.
    """
    text = str(found).strip()
    if isinstance(found, str) and _IN_DOUBT.fullmatch(text):
        meant = f"write {text.replace('.', '')} or {text}0"
        raise LineProblem("count", f"{name}: found {text!r}, which may be thousands or a fraction; {meant}")
    value = value_of(found) if isinstance(found, str) else found
    if value is None or not 0 < value < _MOST_COUNT:
        raise LineProblem("count", f"{name}: found {shown(text)}, expected a number above 0, such as 12")
    return int(value) if float(value).is_integer() else value
